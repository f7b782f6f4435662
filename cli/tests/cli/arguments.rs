//! Arguments of the function that is called: negative numbers, buffers, and what is wrong with others.

use crate::support::Sandbox;

fn result(words: &[&str]) -> String {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&[&["run", "arithmetic.clif", "--call"], words].concat()).fine()
}

#[test]
fn negative_numbers_just_work() {
    assert_eq!(result(&["add", "-1", "-2"]), "-3\n");
    assert_eq!(result(&["half", "-0.5e-3"]), "-0.00025\n");
    assert_eq!(result(&["half", "-.5"]), "-0.25\n");
    assert_eq!(result(&["half", "-inf"]), "-inf\n");
    assert_eq!(result(&["add", "-0x10", "1"]), "-15\n");
    assert_eq!(result(&["add", "--", "-1", "-2"]), "-3\n");
    assert_eq!(result(&["narrow", "-128", "-32768"]), "4194304\n");
}

#[test]
fn options_may_follow_the_arguments() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let ran = sandbox.json(&["run", "arithmetic.clif", "-1", "-2", "-O0", "--call", "add"]);
    assert_eq!(ran["result"], -3);
}

#[test]
fn widths_are_kept() {
    assert_eq!(result(&["narrow", "255", "1"]), "-1\n");
    assert_eq!(result(&["same", "9223372036854775807"]), "9223372036854775807\n");
    assert_eq!(result(&["same", "0xffffffffffffffff"]), "-1\n");
}

#[test]
fn buffers_live_through_the_call_and_are_printed() {
    let sandbox = Sandbox::with(&["saxpy.clif"]);
    let words = ["run", "saxpy.clif", "3", "-2", "f32[1,2,3]", "f32[10,20,30]"];
    assert_eq!(sandbox.objcache(&words).fine(), "argument 3: f32[1,2,3]\nargument 4: f32[8,16,24]\n");
    let ran = sandbox.json(&words);
    let expected = serde_json::json!([
        {"argument": 3, "type": "f32", "values": [1.0, 2.0, 3.0]},
        {"argument": 4, "type": "f32", "values": [8.0, 16.0, 24.0]},
    ]);
    assert_eq!(ran["buffers"], expected);
}

#[test]
fn buffers_of_each_kind() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let buffer = |text| {
        let ran = sandbox.json(&["run", "arithmetic.clif", "--call", "same", text]);
        assert_ne!(ran["result"], 0, "{text}");
        let buffer = &ran["buffers"][0];
        (buffer["type"].as_str().unwrap().to_owned(), buffer["values"].clone())
    };
    use serde_json::json;
    assert_eq!(buffer("i8[-1,127]"), ("i8".to_owned(), json!([-1, 127])));
    assert_eq!(buffer("i16[-1]"), ("i16".to_owned(), json!([-1])));
    assert_eq!(buffer("i32[7;3]"), ("i32".to_owned(), json!([7, 7, 7])));
    assert_eq!(buffer("i64[9007199254740993]"), ("i64".to_owned(), json!([9_007_199_254_740_993_i64])));
    assert_eq!(buffer("f64[0.1,nan]"), ("f64".to_owned(), json!([0.1, "NaN"])));
    assert_eq!(buffer("zero[2]"), ("bytes".to_owned(), json!([0, 0])));
    assert_eq!(buffer("str[a b]"), ("str".to_owned(), json!("a b")));
}

#[test]
fn wrong_arguments_are_usage_errors_that_name_the_argument() {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    let wrong = |words: &[&str]| {
        let error = sandbox.json_error(&[&["run", "arithmetic.clif", "--call"], words].concat(), 2);
        assert_eq!(error["code"], "wrong_arguments");
        error["message"].as_str().unwrap().to_owned()
    };
    assert!(wrong(&["add", "1"]).contains("takes 2 arguments, not 1"));
    assert!(wrong(&["add", "1", "2147483648000"]).contains("argument 2"));
    assert!(wrong(&["half", "one"]).contains("`one`"));
    assert!(wrong(&["half", "f64[1]"]).contains("address"));
    assert!(wrong(&["same", "f32[1,x]"]).contains("`x`"));
}
