//! The relocations of ELF objects: aaelf64, "Static AArch64 relocations" and its tables for thread-local storage.

use super::{Field, Kind, SlotKind, Value};

/// Number, name without `R_AARCH64_`, operation and field. In the order of their numbers.
///
/// A linker does not need what [`Value::None`] marks: the instructions of a TLS descriptor's call.
const KINDS: [(u16, &str, Value, Field); 118] = [
    (0, "NONE", Value::None, Field::None),
    (256, "NULL", Value::None, Field::None),
    (257, "ABS64", Value::Symbol, Field::Data64),
    (258, "ABS32", Value::Symbol, Field::Data32),
    (259, "ABS16", Value::Symbol, Field::Data16),
    (260, "PREL64", Value::Relative, Field::Data64),
    (261, "PREL32", Value::Relative, Field::Data32),
    (262, "PREL16", Value::Relative, Field::Data16),
    (263, "MOVW_UABS_G0", Value::Symbol, Field::MovUnsigned { group: 0 }),
    (264, "MOVW_UABS_G0_NC", Value::Symbol, Field::MovNoCheck { group: 0 }),
    (265, "MOVW_UABS_G1", Value::Symbol, Field::MovUnsigned { group: 1 }),
    (266, "MOVW_UABS_G1_NC", Value::Symbol, Field::MovNoCheck { group: 1 }),
    (267, "MOVW_UABS_G2", Value::Symbol, Field::MovUnsigned { group: 2 }),
    (268, "MOVW_UABS_G2_NC", Value::Symbol, Field::MovNoCheck { group: 2 }),
    (269, "MOVW_UABS_G3", Value::Symbol, Field::MovNoCheck { group: 3 }),
    (270, "MOVW_SABS_G0", Value::Symbol, Field::MovSigned { group: 0 }),
    (271, "MOVW_SABS_G1", Value::Symbol, Field::MovSigned { group: 1 }),
    (272, "MOVW_SABS_G2", Value::Symbol, Field::MovSigned { group: 2 }),
    (273, "LD_PREL_LO19", Value::Relative, Field::Branch19),
    (274, "ADR_PREL_LO21", Value::Relative, Field::Adr),
    (275, "ADR_PREL_PG_HI21", Value::Page, Field::Adrp),
    (276, "ADR_PREL_PG_HI21_NC", Value::Page, Field::AdrpNoCheck),
    (277, "ADD_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 0 }),
    (278, "LDST8_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 0 }),
    (279, "TSTBR14", Value::ShortBranch, Field::Branch14),
    (280, "CONDBR19", Value::ShortBranch, Field::Branch19),
    (282, "JUMP26", Value::Branch, Field::Branch26),
    (283, "CALL26", Value::Branch, Field::Branch26),
    (284, "LDST16_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 1 }),
    (285, "LDST32_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 2 }),
    (286, "LDST64_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 3 }),
    (287, "MOVW_PREL_G0", Value::Relative, Field::MovSigned { group: 0 }),
    (288, "MOVW_PREL_G0_NC", Value::Relative, Field::MovSignedNoCheck { group: 0 }),
    (289, "MOVW_PREL_G1", Value::Relative, Field::MovSigned { group: 1 }),
    (290, "MOVW_PREL_G1_NC", Value::Relative, Field::MovSignedNoCheck { group: 1 }),
    (291, "MOVW_PREL_G2", Value::Relative, Field::MovSigned { group: 2 }),
    (292, "MOVW_PREL_G2_NC", Value::Relative, Field::MovSignedNoCheck { group: 2 }),
    (293, "MOVW_PREL_G3", Value::Relative, Field::MovSignedNoCheck { group: 3 }),
    (299, "LDST128_ABS_LO12_NC", Value::Symbol, Field::Low12 { scale: 4 }),
    (300, "MOVW_GOTOFF_G0", Value::SlotFromGot(SlotKind::Address), Field::MovSigned { group: 0 }),
    (301, "MOVW_GOTOFF_G0_NC", Value::SlotFromGot(SlotKind::Address), Field::MovSignedNoCheck { group: 0 }),
    (302, "MOVW_GOTOFF_G1", Value::SlotFromGot(SlotKind::Address), Field::MovSigned { group: 1 }),
    (303, "MOVW_GOTOFF_G1_NC", Value::SlotFromGot(SlotKind::Address), Field::MovSignedNoCheck { group: 1 }),
    (304, "MOVW_GOTOFF_G2", Value::SlotFromGot(SlotKind::Address), Field::MovSigned { group: 2 }),
    (305, "MOVW_GOTOFF_G2_NC", Value::SlotFromGot(SlotKind::Address), Field::MovSignedNoCheck { group: 2 }),
    (306, "MOVW_GOTOFF_G3", Value::SlotFromGot(SlotKind::Address), Field::MovSignedNoCheck { group: 3 }),
    (307, "GOTREL64", Value::FromGot, Field::Data64),
    (308, "GOTREL32", Value::FromGot, Field::Data32),
    (309, "GOT_LD_PREL19", Value::SlotRelative(SlotKind::Address), Field::Branch19),
    (310, "LD64_GOTOFF_LO15", Value::SlotFromGot(SlotKind::Address), Field::Low15),
    (311, "ADR_GOT_PAGE", Value::SlotPage(SlotKind::Address), Field::Adrp),
    (312, "LD64_GOT_LO12_NC", Value::Slot(SlotKind::Address), Field::Low12 { scale: 3 }),
    (313, "LD64_GOTPAGE_LO15", Value::SlotFromGotPage, Field::Low15),
    (314, "PLT32", Value::Function, Field::Signed32),
    (315, "GOTPCREL32", Value::SlotRelative(SlotKind::Address), Field::Signed32),
    (512, "TLSGD_ADR_PREL21", Value::SlotRelative(SlotKind::ThreadIndex), Field::Adr),
    (513, "TLSGD_ADR_PAGE21", Value::SlotPage(SlotKind::ThreadIndex), Field::Adrp),
    (514, "TLSGD_ADD_LO12_NC", Value::Slot(SlotKind::ThreadIndex), Field::Low12 { scale: 0 }),
    (515, "TLSGD_MOVW_G1", Value::SlotFromGot(SlotKind::ThreadIndex), Field::MovSigned { group: 1 }),
    (
        516,
        "TLSGD_MOVW_G0_NC",
        Value::SlotFromGot(SlotKind::ThreadIndex),
        Field::MovSignedNoCheck { group: 0 },
    ),
    (517, "TLSLD_ADR_PREL21", Value::SlotRelative(SlotKind::ThreadModule), Field::Adr),
    (518, "TLSLD_ADR_PAGE21", Value::SlotPage(SlotKind::ThreadModule), Field::Adrp),
    (519, "TLSLD_ADD_LO12_NC", Value::Slot(SlotKind::ThreadModule), Field::Low12 { scale: 0 }),
    (520, "TLSLD_MOVW_G1", Value::SlotFromGot(SlotKind::ThreadModule), Field::MovSigned { group: 1 }),
    (
        521,
        "TLSLD_MOVW_G0_NC",
        Value::SlotFromGot(SlotKind::ThreadModule),
        Field::MovSignedNoCheck { group: 0 },
    ),
    (522, "TLSLD_LD_PREL19", Value::SlotRelative(SlotKind::ThreadModule), Field::Branch19),
    (523, "TLSLD_MOVW_DTPREL_G2", Value::BlockOffset, Field::MovSigned { group: 2 }),
    (524, "TLSLD_MOVW_DTPREL_G1", Value::BlockOffset, Field::MovSigned { group: 1 }),
    (525, "TLSLD_MOVW_DTPREL_G1_NC", Value::BlockOffset, Field::MovSignedNoCheck { group: 1 }),
    (526, "TLSLD_MOVW_DTPREL_G0", Value::BlockOffset, Field::MovSigned { group: 0 }),
    (527, "TLSLD_MOVW_DTPREL_G0_NC", Value::BlockOffset, Field::MovSignedNoCheck { group: 0 }),
    (528, "TLSLD_ADD_DTPREL_HI12", Value::BlockOffset, Field::High12),
    (529, "TLSLD_ADD_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 0 }),
    (530, "TLSLD_ADD_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 0 }),
    (531, "TLSLD_LDST8_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 0 }),
    (532, "TLSLD_LDST8_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 0 }),
    (533, "TLSLD_LDST16_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 1 }),
    (534, "TLSLD_LDST16_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 1 }),
    (535, "TLSLD_LDST32_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 2 }),
    (536, "TLSLD_LDST32_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 2 }),
    (537, "TLSLD_LDST64_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 3 }),
    (538, "TLSLD_LDST64_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 3 }),
    (
        539,
        "TLSIE_MOVW_GOTTPREL_G1",
        Value::SlotFromGot(SlotKind::ThreadOffset),
        Field::MovSigned { group: 1 },
    ),
    (
        540,
        "TLSIE_MOVW_GOTTPREL_G0_NC",
        Value::SlotFromGot(SlotKind::ThreadOffset),
        Field::MovSignedNoCheck { group: 0 },
    ),
    (541, "TLSIE_ADR_GOTTPREL_PAGE21", Value::SlotPage(SlotKind::ThreadOffset), Field::Adrp),
    (542, "TLSIE_LD64_GOTTPREL_LO12_NC", Value::Slot(SlotKind::ThreadOffset), Field::Low12 { scale: 3 }),
    (543, "TLSIE_LD_GOTTPREL_PREL19", Value::SlotRelative(SlotKind::ThreadOffset), Field::Branch19),
    (544, "TLSLE_MOVW_TPREL_G2", Value::ThreadOffset, Field::MovSigned { group: 2 }),
    (545, "TLSLE_MOVW_TPREL_G1", Value::ThreadOffset, Field::MovSigned { group: 1 }),
    (546, "TLSLE_MOVW_TPREL_G1_NC", Value::ThreadOffset, Field::MovSignedNoCheck { group: 1 }),
    (547, "TLSLE_MOVW_TPREL_G0", Value::ThreadOffset, Field::MovSigned { group: 0 }),
    (548, "TLSLE_MOVW_TPREL_G0_NC", Value::ThreadOffset, Field::MovSignedNoCheck { group: 0 }),
    (549, "TLSLE_ADD_TPREL_HI12", Value::ThreadOffset, Field::High12),
    (550, "TLSLE_ADD_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 0 }),
    (551, "TLSLE_ADD_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 0 }),
    (552, "TLSLE_LDST8_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 0 }),
    (553, "TLSLE_LDST8_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 0 }),
    (554, "TLSLE_LDST16_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 1 }),
    (555, "TLSLE_LDST16_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 1 }),
    (556, "TLSLE_LDST32_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 2 }),
    (557, "TLSLE_LDST32_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 2 }),
    (558, "TLSLE_LDST64_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 3 }),
    (559, "TLSLE_LDST64_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 3 }),
    (560, "TLSDESC_LD_PREL19", Value::SlotRelative(SlotKind::ThreadDescriptor), Field::Branch19),
    (561, "TLSDESC_ADR_PREL21", Value::SlotRelative(SlotKind::ThreadDescriptor), Field::Adr),
    (562, "TLSDESC_ADR_PAGE21", Value::SlotPage(SlotKind::ThreadDescriptor), Field::Adrp),
    (563, "TLSDESC_LD64_LO12", Value::Slot(SlotKind::ThreadDescriptor), Field::Low12 { scale: 3 }),
    (564, "TLSDESC_ADD_LO12", Value::Slot(SlotKind::ThreadDescriptor), Field::Low12 { scale: 0 }),
    (565, "TLSDESC_OFF_G1", Value::SlotFromGot(SlotKind::ThreadDescriptor), Field::MovSigned { group: 1 }),
    (
        566,
        "TLSDESC_OFF_G0_NC",
        Value::SlotFromGot(SlotKind::ThreadDescriptor),
        Field::MovSignedNoCheck { group: 0 },
    ),
    (567, "TLSDESC_LDR", Value::None, Field::None),
    (568, "TLSDESC_ADD", Value::None, Field::None),
    (569, "TLSDESC_CALL", Value::DescriptorCall, Field::None),
    (570, "TLSLE_LDST128_TPREL_LO12", Value::ThreadOffset, Field::All12 { scale: 4 }),
    (571, "TLSLE_LDST128_TPREL_LO12_NC", Value::ThreadOffset, Field::Low12 { scale: 4 }),
    (572, "TLSLD_LDST128_DTPREL_LO12", Value::BlockOffset, Field::All12 { scale: 4 }),
    (573, "TLSLD_LDST128_DTPREL_LO12_NC", Value::BlockOffset, Field::Low12 { scale: 4 }),
    (1029, "TLS_DTPREL64", Value::BlockOffset, Field::Data64),
];

/// What an object cannot have, or what we do not do: named for the message.
const REFUSED: [(u32, &str); 33] = [
    (316, "PATCHINST"),
    (317, "FUNCINIT64"),
    (580, "AUTH_ABS64"),
    (581, "AUTH_MOVW_GOTOFF_G0"),
    (582, "AUTH_MOVW_GOTOFF_G0_NC"),
    (583, "AUTH_MOVW_GOTOFF_G1"),
    (584, "AUTH_MOVW_GOTOFF_G1_NC"),
    (585, "AUTH_MOVW_GOTOFF_G2"),
    (586, "AUTH_MOVW_GOTOFF_G2_NC"),
    (587, "AUTH_MOVW_GOTOFF_G3"),
    (588, "AUTH_GOT_LD_PREL19"),
    (589, "AUTH_LD64_GOTOFF_LO15"),
    (590, "AUTH_ADR_GOT_PAGE"),
    (591, "AUTH_LD64_GOT_LO12_NC"),
    (592, "AUTH_LD64_GOTPAGE_LO15"),
    (593, "AUTH_GOT_ADD_LO12_NC"),
    (594, "AUTH_GOT_ADR_PREL_LO21"),
    (595, "AUTH_TLSDESC_ADR_PAGE21"),
    (596, "AUTH_TLSDESC_LD64_LO12"),
    (597, "AUTH_TLSDESC_ADD_LO12"),
    (598, "AUTH_TLSDESC_CALL"),
    (1024, "COPY"),
    (1025, "GLOB_DAT"),
    (1026, "JUMP_SLOT"),
    (1027, "RELATIVE"),
    (1028, "TLS_DTPMOD64"),
    (1030, "TLS_TPREL64"),
    (1031, "TLSDESC"),
    (1032, "IRELATIVE"),
    (1041, "AUTH_RELATIVE"),
    (1042, "AUTH_GLOB_DAT"),
    (1043, "AUTH_TLSDESC"),
    (1044, "AUTH_IRELATIVE"),
];

/// Positions in [`KINDS`] by number: the lookup is made for each relocation.
static POSITIONS: [u8; LAST + 1] = {
    let mut positions = [NOWHERE; LAST + 1];
    let mut position = 0;
    while position < KINDS.len() {
        positions[KINDS[position].0 as usize] = position as u8;
        position += 1;
    }
    positions
};
const LAST: usize = KINDS[KINDS.len() - 1].0 as usize;
const NOWHERE: u8 = u8::MAX;

fn find(raw: u32) -> Option<&'static (u16, &'static str, Value, Field)> {
    KINDS.get(usize::from(*POSITIONS.get(raw as usize)?))
}

#[inline]
pub(super) fn kind(raw: u32) -> Result<Kind, &'static str> {
    match find(raw) {
        Some((_, _, value, field)) => Ok(Kind::of(*value, *field)),
        None => Err(unsupported(raw)),
    }
}

#[cold]
fn unsupported(raw: u32) -> &'static str {
    match raw {
        316 => "an instruction that the linker chooses",
        317 => "data initialised by a function",
        580..=598 | 1041..=1044 => "pointer authentication",
        1024..=1032 => "a relocation of the dynamic linker in an object file",
        _ => "this kind of relocation",
    }
}

pub(super) fn name(raw: u32) -> String {
    let known = find(raw).map(|(_, name, ..)| *name);
    let refused = || REFUSED.iter().find(|(number, _)| *number == raw).map(|(_, name)| *name);
    match known.or_else(refused) {
        Some(name) => format!("R_AARCH64_{name}"),
        None => format!("relocation type {raw}"),
    }
}
