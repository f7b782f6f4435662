//! What each flag means for the key.
//!
//! A flag is either for the preprocessor, whose text is hashed; or it goes into the key as it stands; or it
//! makes something else than one object file, and is refused; or it reads what we cannot name, and the
//! object is not cached. What takes the next word as its value is listed, and a word that belongs to no flag
//! is refused: taking a value for an input, or the other way round, is how wrong keys are made.

use objcache_signature::OptLevel;

use super::program::Family;

/// A flag with its value, if that is a word of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) words: Vec<String>,
}

/// The flags of a request, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// Those that only the preprocessor reads.
    pub(super) preprocessor: Vec<Flag>,
    /// Those that decide the code, in order.
    pub(super) code: Vec<Flag>,
    /// `-O…`, where it is a level we have a name for. The last one counts.
    pub(super) optimization: Option<OptLevel>,
    /// `--target=…`, `-mtriple=…`.
    pub(super) target: Option<String>,
    /// Which of `-march`, `-mcpu`, `-mtune` are `native`.
    pub(super) native: Vec<String>,
    /// Why the object cannot be cached.
    pub(super) uncacheable: Vec<String>,
}

impl Flag {
    fn new(words: &[&str]) -> Self {
        Self { words: words.iter().map(|&word| word.to_owned()).collect() }
    }
}

enum Treatment {
    Preprocessor,
    Code,
    Refused(&'static str),
    Uncacheable(&'static str),
}

/// How a flag is written.
enum Form {
    /// This word and no other.
    Exact,
    /// Every word that begins so.
    Prefix,
    /// This word and the next one, or both joined.
    Value,
    /// This word and the next one.
    Separate,
}

use Form::{Exact, Prefix, Separate, Value};
use Treatment::{Code, Preprocessor, Refused, Uncacheable};

type Rule = (&'static str, Form, Treatment);

const NOT_AN_OBJECT: Treatment = Refused("it decides what is made, which is always one object file");
const MORE_FILES: Treatment = Refused("it makes files beside the object, which a cache would not bring back");
const BITCODE: Treatment = Refused("it leaves no machine code in the object");
const MODULES: Treatment = Refused("modules and precompiled headers are read from where no key sees them");
const PROGRAMS: Treatment = Uncacheable("it decides which programs, or which of their settings, take part");
const PROFILE: Treatment = Uncacheable("the compiler looks for the profile itself; name the file");

/// For drivers of C compilers. The first rule that fits decides, so exceptions come first.
const DRIVER_RULES: &[Rule] = &[
    // What is made.
    ("-c", Exact, NOT_AN_OBJECT),
    ("-S", Exact, NOT_AN_OBJECT),
    ("-E", Exact, NOT_AN_OBJECT),
    ("-o", Prefix, NOT_AN_OBJECT),
    ("-x", Prefix, NOT_AN_OBJECT),
    ("-M", Prefix, MORE_FILES),
    ("-dump", Prefix, NOT_AN_OBJECT),
    ("-dM", Exact, NOT_AN_OBJECT),
    ("-dD", Exact, NOT_AN_OBJECT),
    ("-dN", Exact, NOT_AN_OBJECT),
    ("-dI", Exact, NOT_AN_OBJECT),
    ("-dU", Exact, NOT_AN_OBJECT),
    ("-dE", Exact, NOT_AN_OBJECT),
    ("-da", Exact, MORE_FILES),
    ("-dH", Exact, MORE_FILES),
    ("-dP", Exact, MORE_FILES),
    ("-dx", Exact, MORE_FILES),
    ("-###", Exact, NOT_AN_OBJECT),
    ("-fsyntax-only", Exact, NOT_AN_OBJECT),
    ("-print-", Prefix, NOT_AN_OBJECT),
    ("-emit-", Prefix, NOT_AN_OBJECT),
    ("-shared", Exact, NOT_AN_OBJECT),
    ("-r", Exact, NOT_AN_OBJECT),
    ("-fno-lto", Exact, Code),
    ("-flto", Prefix, BITCODE),
    ("-fthinlto", Prefix, BITCODE),
    // Further files.
    ("-save-temps", Prefix, MORE_FILES),
    ("-gsplit-dwarf", Prefix, MORE_FILES),
    ("-fdump-", Prefix, MORE_FILES),
    ("-aux-info", Prefix, MORE_FILES),
    ("-fstack-usage", Exact, MORE_FILES),
    ("-fcallgraph-info", Prefix, MORE_FILES),
    ("-fsave-optimization-record", Prefix, MORE_FILES),
    ("-foptimization-record-", Prefix, MORE_FILES),
    ("-fopt-info", Prefix, MORE_FILES),
    ("-ftime-trace", Prefix, MORE_FILES),
    ("-fproc-stat-report", Prefix, MORE_FILES),
    ("-ftest-coverage", Exact, MORE_FILES),
    ("-fprofile-arcs", Exact, MORE_FILES),
    ("-coverage", Exact, MORE_FILES),
    ("-index-store-path", Prefix, MORE_FILES),
    ("-serialize-diagnostics", Prefix, MORE_FILES),
    ("-fdiagnostics-format=sarif-file", Exact, MORE_FILES),
    ("-fdiagnostics-format=json-file", Exact, MORE_FILES),
    ("-fdiagnostics-add-output", Prefix, MORE_FILES),
    ("-fcrash-diagnostics-dir", Prefix, MORE_FILES),
    // What the preprocessor would leave for the compiler to read.
    ("-fmodule", Prefix, MODULES),
    ("-fcxx-modules", Prefix, MODULES),
    ("-fimplicit-module", Prefix, MODULES),
    ("-fprebuilt-", Prefix, MODULES),
    ("-include-pch", Prefix, MODULES),
    ("-fpch-", Prefix, MODULES),
    ("-fdirectives-only", Exact, Refused("it leaves macros unexpanded")),
    ("-frewrite-includes", Exact, Refused("it leaves macros unexpanded")),
    ("-fkeep-system-includes", Exact, Refused("it leaves headers unread")),
    ("-fpreprocessed", Exact, Refused("the kind of the source says that")),
    ("-Wp,", Prefix, Refused("write the preprocessor's flag itself")),
    ("-Xpreprocessor", Prefix, Refused("write the preprocessor's flag itself")),
    // What else takes part.
    ("-specs", Prefix, PROGRAMS),
    ("-B", Value, PROGRAMS),
    ("-wrapper", Separate, PROGRAMS),
    ("-no-integrated-cpp", Exact, PROGRAMS),
    ("-fprofile-use", Exact, PROFILE),
    ("-fprofile-instr-use", Exact, PROFILE),
    ("-fauto-profile", Exact, PROFILE),
    ("-fbranch-probabilities", Exact, PROFILE),
    ("-fprofile-generate", Prefix, Uncacheable("the object names files by where it was made")),
    ("-frecord-gcc-switches", Exact, Uncacheable("the object records the names of temporary files")),
    ("-frecord-command-line", Exact, Uncacheable("the object records the names of temporary files")),
    ("-grecord-command-line", Exact, Uncacheable("the object records the names of temporary files")),
    // The preprocessor's own.
    ("-include", Value, Preprocessor),
    ("-imacros", Value, Preprocessor),
    ("-iquote", Value, Preprocessor),
    ("-isystem-after", Value, Preprocessor),
    ("-isystem", Value, Preprocessor),
    ("-idirafter", Value, Preprocessor),
    ("-iprefix", Value, Preprocessor),
    ("-iwithprefixbefore", Value, Preprocessor),
    ("-iwithprefix", Value, Preprocessor),
    ("-iframework", Value, Preprocessor),
    ("-cxx-isystem", Value, Preprocessor),
    ("-I", Value, Preprocessor),
    ("-D", Value, Preprocessor),
    ("-U", Value, Preprocessor),
    ("-nostdinc", Prefix, Preprocessor),
    ("-nostdlibinc", Exact, Preprocessor),
    ("-nobuiltininc", Exact, Preprocessor),
    ("-undef", Exact, Preprocessor),
    ("-C", Exact, Preprocessor),
    ("-CC", Exact, Preprocessor),
    ("-P", Exact, Preprocessor),
    // Values in a word of their own.
    ("-isysroot", Value, Code),
    ("-Xclang", Separate, Code),
    ("-Xassembler", Separate, Code),
    ("-Xlinker", Separate, Code),
    ("-mllvm", Separate, Code),
    ("-resource-dir", Separate, Code),
    ("-arch", Separate, Refused("name the target instead")),
    ("-L", Value, Code),
    ("-T", Value, Code),
    ("-u", Value, Code),
    ("-z", Separate, Code),
    ("-F", Value, Preprocessor),
    // GNU's long options are other spellings of many of the above; these are the ones let through.
    ("--param=", Prefix, Code),
    ("--param", Separate, Code),
    ("--sysroot=", Prefix, Code),
    ("--sysroot", Separate, Code),
    ("--gcc-toolchain=", Prefix, Code),
    ("--gcc-install-dir=", Prefix, Code),
    ("--std=", Prefix, Code),
    ("--no-default-config", Exact, Code),
    ("--config", Prefix, PROGRAMS),
    ("--specs", Prefix, PROGRAMS),
    ("--coverage", Exact, MORE_FILES),
    ("--save-temps", Prefix, MORE_FILES),
    ("--", Prefix, Refused("it is no long option that objcache knows; write the short one")),
];

/// For gcc before the rules above. It looks for a profile under the name of the object, in the folder that the
/// flag names; our objects have other names.
const GCC_RULES: &[Rule] =
    &[("-fprofile-use", Prefix, GCC_PROFILE), ("-fbranch-probabilities", Exact, GCC_PROFILE)];
const GCC_PROFILE: Treatment =
    Refused("gcc would look for a profile that goes by the object's name, and find none");

const LLC_RULES: &[Rule] = &[
    ("-o", Exact, NOT_AN_OBJECT),
    ("-o=", Prefix, NOT_AN_OBJECT),
    ("-filetype", Prefix, NOT_AN_OBJECT),
    ("-version", Exact, NOT_AN_OBJECT),
    ("-help", Prefix, NOT_AN_OBJECT),
    ("-x", Exact, NOT_AN_OBJECT),
    ("-x=", Prefix, NOT_AN_OBJECT),
    ("-start-", Prefix, NOT_AN_OBJECT),
    ("-stop-", Prefix, NOT_AN_OBJECT),
    ("-run-pass", Prefix, NOT_AN_OBJECT),
    ("-compile-twice", Prefix, NOT_AN_OBJECT),
    ("-split-dwarf-", Prefix, MORE_FILES),
    ("-pass-remarks-output", Prefix, MORE_FILES),
    ("-info-output-file", Prefix, MORE_FILES),
    ("-time-trace", Prefix, MORE_FILES),
    ("-dot-", Prefix, MORE_FILES),
    ("-view-", Prefix, MORE_FILES),
];

impl Flags {
    /// Sorts out `flags`.
    ///
    /// # Errors
    /// Names the flag that cannot be used, and why.
    pub(super) fn parse(family: Family, flags: &[String]) -> Result<Self, String> {
        let mut sorted = Self::default();
        let mut words = flags.iter().map(String::as_str);
        while let Some(word) = words.next() {
            sorted.take(family, word, &mut words)?;
        }
        Ok(sorted)
    }

    fn take<'w>(
        &mut self,
        family: Family,
        word: &'w str,
        rest: &mut impl Iterator<Item = &'w str>,
    ) -> Result<(), String> {
        if word.starts_with('@') {
            return Err(format!("`{word}`: write the flags out; response files are not read"));
        }
        if !word.starts_with('-') || word == "-" {
            return Err(format!(
                "`{word}` is no flag: the source is given apart, and if it is the value of the flag before it, join both"
            ));
        }
        let mut next = || rest.next().ok_or_else(|| format!("`{word}` wants a value"));
        // LLVM's own tools take one dash or two.
        let normal = if family == Family::Llc { word.replacen("--", "-", 1) } else { word.to_owned() };
        if let Some(target) = target_of(family, &normal, &mut next)? {
            return self.set_target(target);
        }
        if let Some(level) = normal.strip_prefix("-O") {
            return self.set_level(level, &normal);
        }
        if let Some((option, value)) = native(&normal) {
            if value != "native" {
                return Err(format!("`{word}`: give `{option}=native` and features apart"));
            }
            let explicit = format!("{option}=");
            self.code.retain(|flag| !flag.words[0].starts_with(&explicit));
            self.native.push(option.to_owned());
            return Ok(());
        }
        let rules: [&[Rule]; 2] = match family {
            Family::Llc => [LLC_RULES, &[]],
            Family::Gcc => [GCC_RULES, DRIVER_RULES],
            Family::Clang => [DRIVER_RULES, &[]],
        };
        let rules = rules.into_iter().flatten();
        let Some((name, form, treatment)) =
            rules.into_iter().find(|(name, form, _)| form.fits(name, &normal))
        else {
            return self.take_code(Flag::new(&[&normal]));
        };
        let takes_next = matches!(form, Separate) || matches!(form, Value) && normal == *name;
        let flag = match treatment {
            Refused(why) => return Err(format!("`{word}`: {why}")),
            _ if takes_next => Flag::new(&[&normal, next()?]),
            _ => Flag::new(&[&normal]),
        };
        match treatment {
            Preprocessor => self.preprocessor.push(flag),
            Uncacheable(why) => {
                self.uncacheable.push(format!("`{}`: {why}", flag.words.join(" ")));
                self.code.push(flag);
            }
            Code | Refused(_) => return self.take_code(flag),
        }
        Ok(())
    }

    fn take_code(&mut self, flag: Flag) -> Result<(), String> {
        check_assembler(&flag)?;
        check_frontend(&flag)?;
        // Of several CPUs the last counts.
        if let Some((option, _)) = flag.words[0].split_once('=') {
            self.native.retain(|native| native != option);
        }
        self.code.push(flag);
        Ok(())
    }

    /// The last level counts. `-Og` and `-Ofast` are more than a level, so they stay flags.
    fn set_level(&mut self, text: &str, flag: &str) -> Result<(), String> {
        self.code.retain(|flag| !flag.words.iter().any(|word| word.starts_with("-O")));
        self.optimization = level(text);
        match self.optimization {
            Some(_) => Ok(()),
            None => self.take_code(Flag::new(&[flag])),
        }
    }

    fn set_target(&mut self, target: String) -> Result<(), String> {
        match self.target.replace(target.clone()) {
            Some(first) if first != target => Err(format!("two targets: `{first}` and `{target}`")),
            _ => Ok(()),
        }
    }

    /// All words of the flags that decide the code.
    pub(super) fn code_words(&self) -> Vec<String> {
        self.code.iter().flat_map(|flag| flag.words.iter().cloned()).collect()
    }

    /// All words of the flags that the preprocessor reads.
    pub(super) fn preprocessor_words(&self) -> Vec<String> {
        self.preprocessor.iter().flat_map(|flag| flag.words.iter().cloned()).collect()
    }
}

impl Form {
    fn fits(&self, name: &str, word: &str) -> bool {
        match self {
            Exact | Separate => word == name,
            Prefix | Value => word.starts_with(name),
        }
    }
}

fn target_of<'w>(
    family: Family,
    word: &str,
    next: &mut impl FnMut() -> Result<&'w str, String>,
) -> Result<Option<String>, String> {
    let joined = match family {
        Family::Clang => word.strip_prefix("--target=").or(word.strip_prefix("-target=")),
        Family::Llc => word.strip_prefix("-mtriple="),
        Family::Gcc => None,
    };
    if let Some(target) = joined {
        return Ok(Some(target.to_owned()));
    }
    let is_separate = family == Family::Clang && matches!(word, "-target" | "--target");
    if is_separate { next().map(|target| Some(target.to_owned())) } else { Ok(None) }
}

/// `-mcpu=native`, and `-mcpu=native+crc`, which also is another CPU on every machine.
fn native(word: &str) -> Option<(&str, &str)> {
    let (option, value) = word.split_once('=')?;
    let is_native = matches!(option, "-march" | "-mcpu" | "-mtune") && value.starts_with("native");
    is_native.then_some((option, value))
}

/// The part of an `-O` flag after the letter.
fn level(text: &str) -> Option<OptLevel> {
    Some(match text {
        "0" => OptLevel::O0,
        "" | "1" => OptLevel::O1,
        "2" => OptLevel::O2,
        "3" => OptLevel::O3,
        "s" => OptLevel::Os,
        "z" => OptLevel::Oz,
        _ => return None,
    })
}

/// The assembler's flags can ask for listings, dependencies and response files.
fn check_assembler(flag: &Flag) -> Result<(), String> {
    let options: Vec<&str> = match flag.words.as_slice() {
        [one] => one.strip_prefix("-Wa,").map(|list| list.split(',').collect()).unwrap_or_default(),
        [first, value, ..] if first == "-Xassembler" => vec![value],
        _ => return Ok(()),
    };
    let refused = |option: &&&str| {
        ["-a", "-o", "-MD", "--MD", "--listing", "@"].iter().any(|prefix| option.starts_with(prefix))
    };
    match options.iter().find(refused) {
        Some(option) => {
            Err(format!("`{option}`: the assembler would make or read files that are no part of the key"))
        }
        None => Ok(()),
    }
}

/// What clang's driver would not be allowed, its front end is not either.
fn check_frontend(flag: &Flag) -> Result<(), String> {
    let [first, value] = flag.words.as_slice() else { return Ok(()) };
    if first != "-Xclang" {
        return Ok(());
    }
    let rule = DRIVER_RULES.iter().find(|(name, form, _)| form.fits(name, value));
    match rule {
        _ if value.starts_with('@') => Err(format!("`-Xclang {value}`: response files are not read")),
        Some((_, _, Refused(why))) => Err(format!("`-Xclang {value}`: {why}")),
        _ => Ok(()),
    }
}

/// Whether a flag names the CPU itself, so that none must be added.
pub(super) fn names_cpu(flag: &str) -> Option<&str> {
    flag.strip_prefix("-march=").or_else(|| flag.strip_prefix("-mcpu="))
}

/// Whether a flag says where the code may lie, so that `-fPIC` must not be added.
pub(super) fn names_relocation_model(flag: &str) -> bool {
    let flags =
        ["-fpic", "-fPIC", "-fpie", "-fPIE", "-fno-pic", "-fno-PIC", "-fno-pie", "-fno-PIE", "-static"];
    flags.contains(&flag) || flag.starts_with("-mcmodel=") || flag.starts_with("-relocation-model=")
}

/// Whether the object names the working directory: debug information and coverage maps do.
pub(super) fn names_working_directory(flag: &str) -> bool {
    flag.starts_with("-g") && flag != "-g0" || flag.contains("coverage") || flag.contains("profile")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(family: Family, flags: &str) -> Result<Flags, String> {
        let words: Vec<_> = flags.split_whitespace().map(str::to_owned).collect();
        Flags::parse(family, &words)
    }

    fn clang(flags: &str) -> Flags {
        parse(Family::Clang, flags).unwrap()
    }

    #[test]
    fn flags_are_told_apart() {
        let flags =
            clang("-Ia -I b -DX=1 -D Y -include c.h -std=c11 -mavx2 -Xclang -disable-O0-optnone -Wall");
        assert_eq!(flags.preprocessor_words().join(" "), "-Ia -I b -DX=1 -D Y -include c.h");
        assert_eq!(flags.code_words().join(" "), "-std=c11 -mavx2 -Xclang -disable-O0-optnone -Wall");
        assert_eq!(flags.uncacheable, [""; 0]);
    }

    #[test]
    fn the_last_level_counts() {
        assert_eq!(clang("-O3 -O").optimization, Some(OptLevel::O1));
        assert_eq!(clang("-Oz").optimization, Some(OptLevel::Oz));
        assert_eq!(clang("-Og").optimization, None);
        assert_eq!(clang("-Og").code_words(), ["-Og"]);
        assert_eq!(clang("-Ofast -O1").code_words(), [""; 0]);
        assert_eq!(clang("-O1 -Ofast").optimization, None);
        assert_eq!(clang("-Og -O1 -Ofast").code_words(), ["-Ofast"]);
    }

    #[test]
    fn targets_and_native_are_taken_out() {
        assert_eq!(clang("--target=riscv64-linux").target.as_deref(), Some("riscv64-linux"));
        assert_eq!(clang("-target riscv64-linux").target.as_deref(), Some("riscv64-linux"));
        assert!(parse(Family::Clang, "-target a --target=b").is_err());
        assert!(parse(Family::Clang, "-target").is_err());
        assert_eq!(parse(Family::Llc, "--mtriple=x -mcpu=native").unwrap().target.as_deref(), Some("x"));
        let last_is_named = clang("-march=native -mtune=native -march=haswell");
        assert_eq!(last_is_named.native, ["-mtune"]);
        assert_eq!(last_is_named.code_words(), ["-march=haswell"]);
        let last_is_native = clang("-march=haswell -O2 -mtune=haswell -march=native");
        assert_eq!(last_is_native.native, ["-march"]);
        assert_eq!(last_is_native.code_words(), ["-mtune=haswell"]);
    }

    #[test]
    fn what_makes_no_single_object_is_refused() {
        let refused = "-c -S -E -o -oout -x -xc -MD -MMD -MF -dM -flto -flto=thin -save-temps -save-temps=obj \
            -gsplit-dwarf -fmodules -fmodule-file=x -include-pch -fsyntax-only -emit-llvm -### -fdump-tree-all \
            --coverage -ftest-coverage -Wp,-MD,x --compile --output=x -Wa,-aln=x -Wa,@x -ftime-trace - @file file.c \
            -arch --help -Xpreprocessor -fkeep-system-includes -mcpu=native+crc";
        for flag in refused.split_whitespace() {
            let error = parse(Family::Clang, flag).expect_err(flag);
            assert!(error.contains(flag.split(',').next_back().unwrap()), "{error}");
        }
        for flags in [
            "-Xclang -emit-llvm",
            "-Xclang -fmodule-file=x",
            "-Xassembler -MD",
            "-I",
            "-Xclang",
            "-Xclang @x",
        ] {
            assert!(parse(Family::Gcc, flags).is_err(), "{flags}");
        }
        for flag in ["-fprofile-use", "-fprofile-use=x.gcda", "-fbranch-probabilities"] {
            assert!(parse(Family::Gcc, flag).is_err(), "{flag}");
        }
        for flag in ["-o=x", "-filetype=asm", "--filetype=null", "-stop-after=x", "x.ll", "-time-trace"] {
            assert!(parse(Family::Llc, flag).is_err(), "{flag}");
        }
    }

    #[test]
    fn what_reads_unnamed_things_is_not_cached() {
        for flags in [
            "-fprofile-use",
            "-fauto-profile",
            "-specs=x",
            "--specs=x",
            "-B/opt",
            "-B /opt",
            "-wrapper x",
            "--config=x",
            "-fprofile-generate",
            "-frecord-gcc-switches",
        ] {
            assert_eq!(clang(flags).uncacheable.len(), 1, "{flags}");
        }
        for flags in
            ["-fprofile-use=x.profdata", "-fno-lto", "-g", "-Wa,--defsym,x=1", "--param=x=1", "--param x=1"]
        {
            assert_eq!(clang(flags).uncacheable, [""; 0], "{flags}");
        }
    }

    #[test]
    fn some_flags_bring_the_working_directory_in() {
        for (flag, expected) in [
            ("-g", true),
            ("-ggdb3", true),
            ("-gline-tables-only", true),
            ("-g0", false),
            ("-O2", false),
            ("-fcoverage-mapping", true),
            ("-fprofile-instr-generate", true),
        ] {
            assert_eq!(names_working_directory(flag), expected, "{flag}");
        }
    }
}
