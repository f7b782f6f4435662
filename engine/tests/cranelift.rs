//! Facts about the built-in compiler: what its objects hold, what its keys distinguish, what its errors say.
#![cfg(feature = "cranelift")]

use objcache::call::Prototype;
use objcache::signature::{IrKind, OptLevel, Signature};
use objcache::{
    CompileError, CompileRequest, Compiler, CraneliftCompiler, DumpDirectory, Prepared, Source, Stage,
};
use object::{Object, ObjectSection, ObjectSymbol};

const SQUARE: &str =
    "function %square(i32) -> i32 {\nblock0(v0: i32):\n    v1 = imul v0, v0\n    return v1\n}\n";

fn compiler() -> CraneliftCompiler {
    CraneliftCompiler::new().expect("Cranelift generates code for the machines we test on")
}

fn request(text: &str) -> CompileRequest {
    CompileRequest::new(Source::new(IrKind::Clif, text))
}

fn prepare(request: &CompileRequest) -> Prepared {
    compiler().prepare(request).unwrap()
}

fn signature(request: &CompileRequest) -> Signature {
    Signature::of(&prepare(request).inputs).unwrap()
}

/// Verifies and compiles, as the engine does.
fn compile(text: &str) -> Result<Vec<u8>, CompileError> {
    let inputs = compiler().prepare(&request(text))?.inputs;
    compiler().verify(&inputs)?;
    compiler().compile(&inputs, None)
}

fn compiled(text: &str) -> Vec<u8> {
    compile(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Names that an object defines and names that it wants, each sorted.
fn symbols(object: &[u8]) -> (Vec<String>, Vec<String>) {
    let file = object::File::parse(object).unwrap();
    let named = |defined: bool| {
        let symbols = file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition() == defined);
        let mut names: Vec<_> = symbols.map(|symbol| symbol.name().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    };
    (named(true), named(false))
}

#[track_caller]
fn refused(text: &str, stage: Stage, words: &[&str]) {
    let error = compile(text).unwrap_err();
    assert_eq!(error.stage, stage, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn every_function_of_a_file_is_exported_from_one_object() {
    let text = "test compile\nset opt_level=speed\ntarget x86_64\ntarget aarch64\n; a comment\n\n\
        function %first(i64) -> i64 {\n    fn0 = %second(i64) -> i64\n    fn1 = u0:3(i64) -> i64\nblock0(v0: i64):\n    \
        v1 = call fn0(v0)\n    v2 = call fn1(v1)\n    return v2\n}\n\n\
        function %second(i64) -> i64 {\nblock0(v0: i64):\n    v1 = iadd v0, v0\n    return v1\n}\n\
        function u0:3(i64) -> i64 {\nblock0(v0: i64):\n    return v0\n}\n";
    let object = compiled(text);
    let (defined, undefined) = symbols(&object);
    assert_eq!(defined, ["first", "second", "u0:3"]);
    assert_eq!(undefined, [""; 0]);
    let file = object::File::parse(&*object).unwrap();
    assert!(file.section_by_name(".eh_frame").is_some_and(|section| section.size() > 0));
}

#[test]
fn what_the_file_does_not_define_is_the_hosts() {
    let text = "function %f(f32) -> f32 {\n    gv0 = symbol %table\n    gv1 = symbol %g\n    \
        fn0 = %host_sin(f32) -> f32\n    fn1 = u7:9(f32) -> f32\n    fn2 = %FloorF32(f32) -> f32\nblock0(v0: f32):\n    \
        v1 = call fn0(v0)\n    v2 = call fn1(v1)\n    v3 = call fn2(v2)\n    v4 = symbol_value.i64 gv0\n    \
        v5 = symbol_value.i64 gv1\n    v6 = load.f32 v4\n    v7 = fadd v3, v6\n    store v7, v5\n    return v7\n}\n\
        function %g() {\nblock0:\n    return\n}\n";
    let (defined, undefined) = symbols(&compiled(text));
    assert_eq!(defined, ["f", "g"]);
    assert_eq!(undefined, ["floorf", "host_sin", "table", "u7:9"]);
}

#[test]
fn one_host_function_may_be_called_with_several_signatures() {
    let text = "function %a(i32) {\n    fn0 = %print(i32)\nblock0(v0: i32):\n    call fn0(v0)\n    return\n}\n\
        function %b(f64) {\n    fn0 = %print(f64)\nblock0(v0: f64):\n    call fn0(v0)\n    return\n}\n";
    assert_eq!(symbols(&compiled(text)).1, ["print"]);
}

#[test]
fn compilation_is_deterministic() {
    assert_eq!(compiled(SQUARE), compiled(SQUARE));
}

#[test]
fn errors_name_function_and_line() {
    let call = |declared: &str| {
        format!("function %f() {{\n    fn0 = %square{declared}\nblock0:\n    return\n}}\n\n{SQUARE}")
    };
    refused(
        &call("(i64) -> i32"),
        Stage::Verify,
        &["%f (line 1)", "fn0", "%square (line 7)", "(i64) -> i32"],
    );
    assert!(compile(&call("(i32) -> i32")).is_ok());
    refused("", Stage::Verify, &["no function"]);
    refused("function %f( {", Stage::Verify, &["line 1"]);
    refused(&format!("{SQUARE}\nbroken"), Stage::Verify, &["line 7", "function"]);
    refused(&format!("{SQUARE}{SQUARE}"), Stage::Verify, &["%square (line 6)", "twice", "line 1"]);
    refused("function %FloorF32() {\nblock0:\n    return\n}", Stage::Verify, &["%FloorF32", "own"]);
    let wrong_type = "\nfunction %f(i32) -> i64 {\nblock0(v0: i32):\n\n    return v0\n}\n";
    refused(wrong_type, Stage::Verify, &["%f (line 2)", "line 5"]);
    let both = "function %f() -> i64 {\n    gv0 = symbol %x\n    gv1 = symbol tls %x\nblock0:\n    \
        v0 = symbol_value.i64 gv0\n    return v0\n}";
    refused(both, Stage::Compile, &["%f (line 1)", "`x`", "thread-local"]);
}

#[test]
fn what_the_code_generator_cannot_do_is_an_error_not_a_panic() {
    // Valid IR for which the backends have no rule, and IR that was never verified.
    let unsupported = "function %f(i128, i128) -> i128 {\nblock0(v0: i128, v1: i128):\n    \
        v2 = udiv v0, v1\n    return v2\n}\n";
    let inputs = prepare(&request(unsupported)).inputs;
    let error = compiler().compile(&inputs, None).unwrap_err();
    assert_eq!(error.stage, Stage::Compile);
    assert!(error.what.contains("%f (line 1)"), "{error}");
    let invalid = "function %g(i32) -> i64 {\nblock0(v0: i32):\n    v1 = iadd.i64 v0, v9\n    return v1\n}\n";
    let inputs = prepare(&request(invalid)).inputs;
    assert!(compiler().compile(&inputs, None).is_err());
    assert!(compiler().compile(&prepare(&request(SQUARE)).inputs, None).is_ok(), "it goes on after an error");
}

#[test]
fn the_key_has_every_isa_flag() {
    let features = prepare(&request(SQUARE)).inputs.target.features;
    assert!(features.len() > 3, "{features:?}");
    assert!(features.iter().all(|feature| feature.starts_with(['+', '-'])), "{features:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn cpu_and_features_come_to_one_resolved_list() {
    let with = |cpu: &str, features: &[&str]| {
        let features = features.iter().map(|&feature| feature.to_owned()).collect();
        prepare(&CompileRequest { cpu: Some(cpu.to_owned()), features, ..request(SQUARE) }).inputs
    };
    let has = |cpu: &str, features: &[&str], name: &str| with(cpu, features).target.features.contains(name);
    assert!(has("x86-64-v3", &[], "+has_avx2"));
    assert!(has("x86-64-v3", &[], "-has_avx512f"));
    assert!(has("haswell", &["-avx2"], "-has_avx2"));
    assert!(has("generic", &["+sse4.1,+has_avx", "+bmi"], "+has_sse41"));
    assert!(has("generic", &["+sse4.1,+has_avx", "+bmi"], "+has_bmi1"));
    assert!(has("generic", &[], "-has_sse3"));
    assert_eq!(with("native", &[]), prepare(&request(SQUARE)).inputs);
    assert_ne!(with("generic", &[]).target, with("x86-64-v3", &[]).target);
    for (cpu, features, word) in
        [("z80", "", "haswell"), ("generic", "avx2", "+ or -"), ("generic", "+avx9", "has_avx2")]
    {
        let request = CompileRequest {
            cpu: Some(cpu.to_owned()),
            features: Vec::from_iter((!features.is_empty()).then(|| features.to_owned())),
            ..request(SQUARE)
        };
        let error = compiler().prepare(&request).unwrap_err();
        assert!(error.why.contains(word), "{error}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn features_reach_the_code() {
    let text = "function %f(f64) -> f64 {\nblock0(v0: f64):\n    v1 = floor v0\n    return v1\n}\n";
    let wants = |cpu: &str| {
        let inputs = prepare(&CompileRequest { cpu: Some(cpu.to_owned()), ..request(text) }).inputs;
        symbols(&compiler().compile(&inputs, None).unwrap()).1
    };
    assert_eq!(wants("generic"), ["floor"], "without SSE4.1 it is a library call");
    assert_eq!(wants("x86-64-v2"), [""; 0], "with it an instruction");
}

#[test]
fn settings_come_from_the_file_and_flags_override_them() {
    let flagged = |text: &str, flags: &[&str]| {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        prepare(&CompileRequest { flags, ..request(text) }).inputs
    };
    let plain = flagged(SQUARE, &[]);
    assert_eq!(plain.flags, [""; 0], "defaults are left out");
    assert_eq!(flagged(SQUARE, &["is_pic=true", "unwind_info=yes"]).flags, [""; 0]);
    assert_eq!(
        flagged(SQUARE, &["is_pic=0", "enable_pinned_reg"]).flags,
        ["enable_pinned_reg=true", "is_pic=false"]
    );
    let in_file = format!("set opt_level=none is_pic=false\n{SQUARE}");
    assert_eq!(flagged(&in_file, &[]).flags, ["is_pic=false"]);
    assert_eq!(flagged(&in_file, &[]).optimization, OptLevel::O0);
    assert_eq!(flagged(&in_file, &["is_pic=true", "opt_level=speed"]).flags, [""; 0]);
    assert_eq!(flagged(&in_file, &["opt_level=speed"]).optimization, OptLevel::O2);
    for flag in
        ["no_such_setting=1", "no_such_setting", "opt_level", "opt_level=fast", "probestack_size_log2=x"]
    {
        let request = CompileRequest { flags: vec![flag.to_owned()], ..request(SQUARE) };
        let error = compiler().prepare(&request).unwrap_err();
        assert!(error.why.contains("setting `"), "{error}");
    }
}

#[test]
fn the_signature_follows_what_decides_the_object() {
    let plain = signature(&request(SQUARE));
    assert_eq!(plain, signature(&request(SQUARE)));
    let at = |optimization| signature(&CompileRequest { optimization, ..request(SQUARE) });
    assert_ne!(plain, at(OptLevel::O3), "another level is another key, though Cranelift makes no difference");
    assert_ne!(plain, at(OptLevel::O0));
    assert_ne!(plain, at(OptLevel::O0));
    assert_ne!(plain, at(OptLevel::Os));
    assert_ne!(plain, signature(&request(&format!("{SQUARE} "))));
    let flags = vec!["enable_nan_canonicalization=true".to_owned()];
    assert_ne!(plain, signature(&CompileRequest { flags, ..request(SQUARE) }));
    let elsewhere = Source { path: Some("/elsewhere/square.clif".into()), ..request(SQUARE).source };
    assert_eq!(plain, signature(&CompileRequest::new(elsewhere)), "where it lies does not matter");
}

#[test]
fn targets_this_build_does_not_make_are_refused() {
    for (target, word) in [
        ("z80-unknown-none", "triple"),
        ("i686-unknown-linux-gnu", "knows"),
        ("s390x-unknown-linux-gnu", "only for"),
    ] {
        let error = compiler()
            .prepare(&CompileRequest { target: Some(target.to_owned()), ..request(SQUARE) })
            .unwrap_err();
        assert!(error.why.contains(word), "{error}");
    }
    let only_elsewhere = format!("target s390x\n{SQUARE}");
    assert!(compiler().prepare(&request(&only_elsewhere)).is_err(), "the file is not for this machine");
    assert!(compiler().prepare(&CompileRequest::new(Source::new(IrKind::C, "int x;"))).is_err());
}

#[test]
fn prototypes_are_those_a_c_caller_can_call() {
    let function = |name: &str, signature: &str| {
        format!("function %{name}{signature} {{\nblock0:\n    trap user1\n}}\n")
    };
    // Blocks must take the parameters, so these functions are declared with a block that does not fit: the
    // reader does not mind, and nothing is verified or compiled for prototypes.
    let text = [
        function("nothing", "()"),
        function("all", "(i8, i16 sext, i32, i64, f32, f64) -> f32"),
        function("wide", "(i64 uext) -> i64"),
        function("zeros", "(i8 uext)"),
        function("vector", "(i32x4)"),
        function("huge", "(i128)"),
        function("two", "() -> i32, i32"),
        function("structure", "(i64 sret)"),
        function("tail", "(i32) tail"),
    ]
    .concat();
    let prototypes = compiler().prototypes(&prepare(&request(&text)).inputs).unwrap();
    let expected = [("nothing", "void()"), ("all", "f32(i8,i16,i32,i64,f32,f64)"), ("wide", "i64(i64)")];
    let expected: Vec<(String, Prototype)> =
        expected.iter().map(|(name, prototype)| (name.to_string(), prototype.parse().unwrap())).collect();
    assert_eq!(prototypes, expected);
}

#[test]
fn dumps_show_every_step() {
    let text = format!(
        "function %twice(i32) -> i32 {{\n    fn0 = %square(i32) -> i32\n    fn1 = %host(i32) -> i32\nblock0(v0: i32):\n    \
         v1 = call fn0(v0)\n    v2 = call fn1(v1)\n    return v2\n}}\n{SQUARE}"
    );
    let inputs = prepare(&request(&text)).inputs;
    let folder = tempfile::tempdir().unwrap();
    let dump = DumpDirectory::of(folder.path(), &Signature::of(&inputs).unwrap());
    let object = compiler().compile(&inputs, Some(&dump)).unwrap();
    let read = |name: &str| std::fs::read(dump.path().join(name)).unwrap();
    let shown = |name: &str| String::from_utf8(read(name)).unwrap();
    assert_eq!(read("input.clif"), text.as_bytes());
    assert_eq!(read("object.o"), object);
    assert!(shown("optimized.clif").contains("; twice, fn0 = square, fn1 = host"));
    assert!(shown("optimized.clif").contains("imul"));
    assert!(shown("code.asm").contains("square:"));
    assert_eq!(object, compiler().compile(&inputs, None).unwrap(), "a dump changes nothing");
}
