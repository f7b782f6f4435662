//! The ingredients that are a choice out of a closed list, with the names under which they are hashed.

use std::fmt;
use std::str::FromStr;

/// An enumeration whose values have one stable name each: hashed, shown and parsed.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$value_doc])* $value,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The name that is hashed and shown; it never changes.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|value| value.as_str()).collect();
                    format!("`{text}` is none of {}", known.join(", "))
                })
            }
        }
    };
}

choices! {
    /// What a compilation makes.
    ArtifactKind {
        /// A relocatable object file.
        RelocatableObject = "relocatable-object",
    }
}

choices! {
    /// The container of the machine code.
    ObjectFormat {
        /// System V: Linux, the BSDs.
        Elf = "elf",
        /// macOS, iOS.
        MachO = "mach-o",
        /// Windows.
        Coff = "coff",
    }
}

choices! {
    /// How far to optimise.
    OptLevel {
        /// Not at all.
        O0 = "0",
        /// A little.
        O1 = "1",
        /// The usual.
        O2 = "2",
        /// At the cost of size and compile time.
        O3 = "3",
        /// For speed and size.
        Os = "s",
        /// For size.
        Oz = "z",
    }
}

choices! {
    /// How far code and data may be from each other, in the psABIs' terms.
    CodeModel {
        /// AArch64: within ±1 MiB.
        Tiny = "tiny",
        /// Within ±2 GiB.
        Small = "small",
        /// In the negative 2 GiB.
        Kernel = "kernel",
        /// Large data apart.
        Medium = "medium",
        /// Anywhere.
        Large = "large",
    }
}

choices! {
    /// Whether the code runs at any address.
    RelocationModel {
        /// At the address it was linked for.
        Static = "static",
        /// At any address, symbols may be interposed.
        Pic = "pic",
        /// At any address, within an executable.
        Pie = "pie",
    }
}

choices! {
    /// How thread-local variables are reached (Drepper, "ELF Handling For Thread-Local Storage").
    TlsModel {
        /// Through `__tls_get_addr`.
        GlobalDynamic = "global-dynamic",
        /// Once per module.
        LocalDynamic = "local-dynamic",
        /// Through an offset out of the GOT.
        InitialExec = "initial-exec",
        /// Through a constant offset.
        LocalExec = "local-exec",
    }
}
