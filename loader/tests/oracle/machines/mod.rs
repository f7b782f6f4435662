//! The architectures under test. One line here and one file each.

use crate::machine::Machine;
use crate::{generated, threads, whole};

/// Lists the modules and their machines, and makes tests of each. In brackets: once more, with addends in the tables
/// instead of the fields, of which no compiler makes objects.
macro_rules! machines {
    ($($module:ident: $($machine:ident $name:ident),+ $([$also:ident $also_name:ident])?;)*) => {
        $(mod $module;)*

        pub static MACHINES: &[&Machine] = &[$($(&$module::$machine,)+ $(&$module::$also,)?)*];

        $($(mod $name {
            #[test]
            fn generated_cases_are_done_as_lld_does() {
                super::generated::compare(&super::$module::$machine);
            }

            #[test]
            fn whole_objects_are_linked_as_lld_does() {
                super::whole::compare(&super::$module::$machine);
            }

            #[test]
            fn thread_local_variables_are_where_lld_has_them() {
                super::threads::compare(&super::$module::$machine);
            }
        })+
        $(mod $also_name {
            #[test]
            fn generated_cases_are_done_as_lld_does() {
                super::generated::compare(&super::$module::$also);
            }
        })?)*
    };
}

/// More tests of machines, of kinds that lld shows in shared libraries only.
macro_rules! libraries {
    ($($module:ident: $machine:ident $name:ident;)*) => {
        mod libraries {
            $(#[test]
            fn $name() {
                crate::generated::compare_in_libraries(&super::$module::$machine);
            })*
        }
    };
}

/// The same of kinds that only GNU ld knows.
macro_rules! gnu_only {
    ($($module:ident: $machine:ident $name:ident;)*) => {
        mod gnu_only {
            $(#[test]
            fn $name() {
                crate::generated::compare_with_gnu(&super::$module::$machine);
            })*
        }
    };
}

machines! {
    x86_64: MACHINE of_x86_64;
    i386: MACHINE of_i386 [EXPLICIT of_i386_with_explicit_addends];
    arm: MACHINE of_arm [EXPLICIT of_arm_with_explicit_addends];
    aarch64: MACHINE of_aarch64;
    riscv: RISCV64 of_riscv64, RISCV32 of_riscv32;
    loongarch64: MACHINE of_loongarch64;
    ppc64: MACHINE of_powerpc64le;
    s390x: MACHINE of_s390x;
}

libraries! {
    x86_64: MACHINE of_x86_64;
    i386: MACHINE of_i386;
    arm: MACHINE of_arm;
    aarch64: MACHINE of_aarch64;
    riscv: RISCV64 of_riscv64;
    riscv: RISCV32 of_riscv32;
    loongarch64: MACHINE of_loongarch64;
    ppc64: MACHINE of_powerpc64le;
    s390x: MACHINE of_s390x;
}

gnu_only! {
    x86_64: MACHINE of_x86_64;
    i386: MACHINE of_i386;
    arm: MACHINE of_arm;
    aarch64: MACHINE of_aarch64;
    ppc64: MACHINE of_powerpc64le;
}
