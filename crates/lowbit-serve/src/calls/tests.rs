use super::*;
use lowbit_model::chat::{Marks, Message, Template};
use lowbit_model::model_config::ChatSettings;
use serde::Deserialize;
use serde_json::json;

fn syntax(open: &str, begin: &str, form: CallForm, end: &str, close: &str) -> CallSyntax {
    let [open, begin, end, close] = [open, begin, end, close].map(String::from);
    CallSyntax { open, begin, form, end, between: Some("\n".into()), close }
}

fn object(begin: &str, end: &str, key: &str) -> CallSyntax {
    syntax("", begin, CallForm::Object(key.into()), end, "")
}

/// Qwen3-Coder's way.
fn coder() -> CallSyntax {
    let marks = [">\n", "<parameter=", ">\n", "\n</parameter>\n"].map(String::from);
    let [head, key, value, end] = marks;
    let form = CallForm::Marked(Marks { head, key, value, end });
    syntax("", "<tool_call>\n<function=", form, "</function>\n</tool_call>", "")
}

fn deepseek() -> CallSyntax {
    syntax("<calls>", "<call>", CallForm::Named("<sep>".into()), "</call>", "</calls>")
}

fn mistral() -> CallSyntax {
    syntax("", "[CALLS]", CallForm::Named("[ID]probe0001[ARGS]".into()), "", "")
}

fn lfm() -> CallSyntax {
    syntax("<start>[", "", CallForm::Python, "", "]<end>")
}

fn function(name: &str) -> Function {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {}, "c": {"type": "boolean"}}, "required": ["a"]});
    Function { name: name.into(), parameters: schema, strict: false }
}

fn calls(syntax: &CallSyntax, single: bool) -> Arc<Calls> {
    Arc::new(Calls::new(syntax, vec![function("f"), function("get.g")], single))
}

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

fn call(name: &str, arguments: Value) -> Piece {
    Piece::Call(name.into(), arguments.as_object().expect("an object").clone())
}

/// Whole and letter by letter, with neighbouring texts joined.
fn found(calls: &Arc<Calls>, answer: &str) -> Vec<Piece> {
    let joined = |pieces: Vec<Piece>| {
        pieces.into_iter().fold(Vec::new(), |mut out: Vec<Piece>, piece| {
            match (out.last_mut(), piece) {
                (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
                (_, piece) => out.push(piece),
            }
            out
        })
    };
    let whole = joined(CallParser::all(calls.clone(), answer));
    let mut parser = CallParser::new(calls.clone());
    let mut pieces: Vec<Piece> = answer.chars().flat_map(|c| parser.push(c.encode_utf8(&mut [0; 4]))).collect();
    pieces.extend(parser.finish());
    assert_eq!(joined(pieces), whole, "{answer}");
    whole
}

#[test]
fn calls_between_marks() {
    let hermes = object("<tool_call>\n", "\n</tool_call>", "arguments");
    let one = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}</tool_call>\"}}\n</tool_call>";
    let f = call("f", json!({"a": "}</tool_call>"}));
    let two = format!("I look. <b>\n\n{one}\n{one}\n");
    for (answer, expected) in [
        (one, vec![f.clone()]),
        (&two, vec![text("I look. <b>"), f.clone(), f.clone()]),
        ("<tool_call>{\"name\":\"get.g\"}</tool_call> Done.", vec![call("get.g", json!({})), text("Done.")]),
        ("<tool_call>\n{\"name\": \"f\", \"parameters\": {\"b\": 1}}", vec![call("f", json!({"b": 1}))]),
        ("<tool_call>\n{\"name\": \"f\", \"arguments\": \"{\\\"b\\\": 1}\"}", vec![call("f", json!({"b": 1}))]),
        (
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"1e999 \\\"\": [-82.9e777, 1e999, 2]}}</tool_call>",
            vec![call("f", json!({"1e999 \"": [-1e308, 1e308, 2]}))],
        ),
    ] {
        assert_eq!(found(&calls(&hermes, false), answer), expected, "{answer}");
    }
    assert_eq!(found(&calls(&hermes, true), &format!("{one}\n{one}")), [f]);
}

#[test]
fn calls_without_marks() {
    let llama = calls(&object("", "", "parameters"), false);
    let g = call("get.g", json!({"a": [1, {"b": "}"}]}));
    let one = "{\"name\": \"get.g\", \"parameters\": {\"a\": [1, {\"b\": \"}\"}]}}";
    assert_eq!(found(&llama, one), std::slice::from_ref(&g));
    assert_eq!(found(&llama, &format!("\n {one}; {one}\n")), [g.clone(), g.clone()]);
    assert_eq!(found(&llama, &format!("[{one}, {one}]")), [g.clone(), g.clone()]);
    // In the way of Python, which the template of Llama 3.2 does not show.
    assert_eq!(
        found(&llama, "[f(a=\"x)\", b=[1]), get.g()]"),
        [call("f", json!({"a": "x)", "b": [1]})), call("get.g", json!({}))]
    );
    for other in [
        "Hello",
        "{\"a\": 1} is JSON",
        "",
        "[1, 2]",
        "[f, g]",
        "[g(a=1)]",
        "{\"name\": \"f\", \"parameters\": {",
        "Call {\"name\": \"f\"}",
    ] {
        let expected: Vec<Piece> = Some(text(other)).filter(|_| !other.is_empty()).into_iter().collect();
        assert_eq!(found(&llama, other), expected, "{other}");
    }
}

#[test]
fn calls_in_other_forms() {
    let list = syntax("[CALLS] [", "", CallForm::Object("arguments".into()), "", "]");
    for (syntax, answer, expected) in [
        (list.clone(), "[CALLS] [{\"name\": \"f\", \"arguments\": {}}]", vec![call("f", json!({}))]),
        (list, "So: [CALLS]{\"name\": \"f\", \"arguments\": {}}", vec![text("So:"), call("f", json!({}))]),
        (
            coder(),
            "Hm.\n<tool_call>\n<function=f>\n<parameter=a>\n 1\n\n</parameter>\n<parameter=b>\n[1, \"x\"]\n</parameter>\n<parameter=c>\nTrue\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=get.g>\n</function>\n</tool_call>",
            vec![text("Hm."), call("f", json!({"a": " 1\n", "b": [1, "x"], "c": true})), call("get.g", json!({}))],
        ),
        (
            coder(),
            "<tool_call> <function=f><parameter=a>x</parameter></function></tool_call>",
            vec![text("<tool_call>"), call("f", json!({"a": "x"}))],
        ),
        (coder(), "<tool_call>\n<function=f>\n<parameter=b>a <b></parameter>", vec![call("f", json!({"b": "a <b>"}))]),
        (
            deepseek(),
            "I look.<calls><call>f<sep>{\"a\": \"{\"}</call><call>get.g<sep>{}</call></calls> \n",
            vec![text("I look."), call("f", json!({"a": "{"})), call("get.g", json!({}))],
        ),
        (
            mistral(),
            "[CALLS]f[ID]abc123XYZ[ARGS]{\"a\": \"x\"}[CALLS]get.g[ARGS]{}",
            vec![call("f", json!({"a": "x"})), call("get.g", json!({}))],
        ),
        (
            lfm(),
            "<start>[f(a='it\\'s', b={\"k\": (1, -2.5, None)}, c=False), get.g()]<end>Checking.",
            vec![
                call("f", json!({"a": "it's", "b": {"k": [1, -2.5, null]}, "c": false})),
                call("get.g", json!({})),
                text("Checking."),
            ],
        ),
        (lfm(), "<start>f(a=\"\\u00fc\\n\\q\")<end>", vec![call("f", json!({"a": "ü\n\\q"}))]),
    ] {
        assert_eq!(found(&calls(&syntax, false), answer), expected, "{answer}");
    }
}

#[test]
fn what_is_no_call_stays_as_it_is() {
    let hermes = object("<tool_call>\n", "\n</tool_call>", "arguments");
    for (syntax, answers) in [
        (
            hermes,
            &[
                "Hello <tool_call",
                "a < b",
                "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\"",
                "<tool_call><function=f></function></tool_call>",
                "<tool_call>\n{\"name\": \"f\", \"arguments\": 3}\n</tool_call>",
                "{\"name\": \"f\", \"arguments\": {}}",
            ][..],
        ),
        (
            coder(),
            &[
                "<tool_call>\n<function=unknown>\n</function>\n</tool_call>",
                "<tool_call>\n<function=f>\n<parameter=a>\nx",
                "<tool_call>\n<function=f>\nNo.\n</function>\n</tool_call>",
            ],
        ),
        (deepseek(), &["<call>unknown<sep>{}</call>", "<calls><call>f<sep>[1]</call></calls>", "<call>f", "<calls>"]),
        (mistral(), &["[CALLS]f[ARGS]{\"a\": ", "[CALLS] is a word", "[CALLS]f{]"]),
        (lfm(), &["<start>[f(1)]<end>", "<start>[f(a=b)]<end>", "<start>f(a=\"x", "<start>[f(a=nan)]"]),
    ] {
        for answer in answers {
            assert_eq!(found(&calls(&syntax, false), answer), [text(answer)], "{answer}");
        }
    }
}

#[derive(Deserialize)]
struct Golden {
    tools: Vec<Value>,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    name: String,
    template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    offered: bool,
    text: Option<String>,
}

/// What templates write of calls of earlier turns, as transformers renders them, is read as these calls.
#[test]
fn calls_are_read_as_templates_write_them() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../lowbit-model/tests/golden/chat_tools.json")).expect("JSON");
    let functions: Vec<Function> = golden
        .tools
        .iter()
        .map(|tool| {
            let (name, parameters) =
                (tool["function"]["name"].as_str().expect("a name").to_owned(), tool["function"]["parameters"].clone());
            Function { name, parameters, strict: false }
        })
        .collect();
    for group in &golden.groups {
        let settings: ChatSettings = [("bos_token", "<|begin_of_text|>"), ("eos_token", "<|eot_id|>")].into();
        let syntax = Template::new(&group.template, &settings).expect("a template").call_syntax().expect("calls");
        let calls = Arc::new(Calls::new(&syntax, functions.clone(), false));
        let mut count = 0;
        for case in group.cases.iter().filter(|case| case.offered) {
            let Some(turn) = case.messages.iter().find(|message| !message.tool_calls.is_empty()) else { continue };
            let Some(whole) = &case.text else { continue };
            // From behind what the user said.
            let said = &case.messages[0].content;
            let rest = &whole[whole.rfind(said.as_str()).expect("said") + said.len()..];
            let begin = format!("{}{}", syntax.open, syntax.begin);
            let answer = &rest[rest.find(if begin.is_empty() { "{" } else { &begin }).expect("a call")..];
            let called: Vec<Piece> =
                CallParser::all(calls.clone(), answer).into_iter().take(turn.tool_calls.len()).collect();
            let expected: Vec<Piece> =
                turn.tool_calls.iter().map(|call| Piece::Call(call.name.clone(), call.arguments.clone())).collect();
            assert_eq!(called, expected, "{}: {answer}", group.name);
            count += 1;
        }
        assert!(count > 0, "{}", group.name);
    }
}

#[test]
fn grammars_spell_control_tokens() {
    let controls = BTreeMap::from([(7, "[CALLS]".to_owned()), (8, "[CALLS]x".to_owned()), (9, "[ARGS]".to_owned())]);
    let f = Function { name: "f".into(), parameters: json!({"type": "object"}), strict: true };
    let list = CallSyntax {
        between: Some(", ".into()),
        ..syntax("[CALLS]x [", "", CallForm::Object("arguments".into()), "", "]")
    };
    let rules = grammar(&list, &[&f], true, &controls);
    assert!(rules.starts_with("start: <[8]> \" [\" one (\", \" one)* \"]\"\none:  call \ncall: call_0\n"), "{rules}");
    assert!(rules.contains("call_0: \"{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": \" args_0 \"}\""), "{rules}");
    let rules = grammar(&mistral(), &[&f], false, &controls);
    assert!(rules.contains("one: <[7]> call "), "{rules}");
    assert!(rules.contains("call_0: \"f\" \"[ID]\" /[a-zA-Z0-9]{9}/ <[9]> args_0"), "{rules}");
    let shown: Vec<u32> = shown(&mistral(), &controls).into_iter().map(|(id, _)| id).collect();
    assert_eq!(shown, [7, 9]);
}
