//! Functions in chat templates: told as transformers tells them, and calls found as templates write them.

use lowbit_base::testing::{Need, skipped};
use lowbit_model::chat::{CallForm, CallSyntax, Marks, Message, Role, Template, ToolCall};
use lowbit_model::model_config::ChatSettings;
use serde::Deserialize;
use serde_json::{Value, json};

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
    answer: bool,
    text: Option<String>,
}

/// 26 July 2024, the day on which the golden chats were rendered.
const JULY: i64 = 1_721_952_000;

fn template(source: &str) -> Template {
    let settings: ChatSettings = [("bos_token", "<|begin_of_text|>"), ("eos_token", "<|eot_id|>")].into();
    Template::new(source, &settings).expect("a template").on(JULY)
}

/// Cases, and those that differ; refusals count where they are asked for.
fn differences(golden: &Golden, strict: bool) -> (usize, Vec<String>) {
    let (mut count, mut wrong) = (0, Vec::new());
    for group in &golden.groups {
        let template = template(&group.template);
        for (i, case) in group.cases.iter().enumerate().filter(|(_, case)| strict || case.text.is_some()) {
            count += 1;
            let tools = if case.offered { &golden.tools[..] } else { &[] };
            let got = template.render_with_tools(&case.messages, tools, case.answer);
            if got.as_ref().ok() != case.text.as_ref() {
                let same = match (&got, &case.text) {
                    (Ok(got), Some(text)) => got.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count(),
                    _ => 0,
                };
                let shown = |text: &str| text.get(same..).unwrap_or_default().chars().take(80).collect::<String>();
                let got = got.map_or_else(|e| e.to_string(), |got| shown(&got));
                wrong.push(format!(
                    "{} {i} at {same}: {got:?} instead of {:?}",
                    group.name,
                    case.text.as_deref().map(shown)
                ));
            }
        }
    }
    (count, wrong)
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/chat_tools.json")).expect("golden chats")
}

#[test]
fn functions_are_told_as_transformers_tells_them() {
    let (count, wrong) = differences(&golden(), true);
    assert_eq!(count, 73);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Cases of other templates, written by `tools/golden/chat_tools.py --all`, in the file that `LOWBIT_CHAT_TOOLS` names.
#[test]
fn other_templates() {
    let Some(path) = std::env::var_os("LOWBIT_CHAT_TOOLS") else {
        return skipped(Need::Environment, "LOWBIT_CHAT_TOOLS names no file");
    };
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).expect("a file")).expect("cases");
    let syntaxes = golden.groups.iter().map(|group| (&group.name, template(&group.template).call_syntax()));
    syntaxes.for_each(|(name, syntax)| println!("{name}: {syntax:?}"));
    let (count, wrong) = differences(&golden, false);
    assert!(wrong.is_empty(), "{} of {count} differ: {wrong:#?}", wrong.len());
}

/// What stands around calls: before all, before each, behind each, between two, behind all.
fn around([open, begin, end, between, close]: [&str; 5], form: CallForm) -> CallSyntax {
    let [open, begin, end, between, close] = [open, begin, end, between, close].map(String::from);
    CallSyntax { open, begin, form, end, between: Some(between), close }
}

fn object(begin: &str, end: &str, arguments: &str) -> CallSyntax {
    let between = (!begin.is_empty()).then(|| "\n".to_owned());
    CallSyntax { between, ..around(["", begin, end, "", ""], CallForm::Object(arguments.into())) }
}

fn marks(texts: [&str; 4]) -> CallForm {
    let [head, key, value, end] = texts.map(String::from);
    CallForm::Marked(Marks { head, key, value, end })
}

#[test]
fn calls_are_written_as_templates_write_them() {
    let named = |middle: &str| CallForm::Named(middle.into());
    let hermes = object("<tool_call>\n", "\n</tool_call>", "arguments");
    let coder = marks([">\n", "<parameter=", ">\n", "\n</parameter>\n"]);
    let glm = marks(["\n", "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"]);
    let minimax = marks(["\">\n", "<parameter name=\"", "\">", "</parameter>\n"]);
    let list = CallForm::Object("arguments".into());
    let expected = [
        ("qwen2_5", hermes.clone()),
        ("qwen3", hermes.clone()),
        ("llama", object("", "", "parameters")),
        ("mistral", around(["[TOOL_CALLS] [", "", "", ", ", "]"], list)),
        ("qwen3_coder", around(["", "<tool_call>\n<function=", "</function>\n</tool_call>", "", ""], coder)),
        ("glm", around(["", "<tool_call>", "</tool_call>", "", ""], glm)),
        (
            "minimax",
            around(["<minimax:tool_call>\n", "<invoke name=\"", "</invoke>\n", "", "</minimax:tool_call>"], minimax),
        ),
        ("mistral_args", around(["", "[TOOL_CALLS]", "", "", ""], named("[CALL_ID]probe0001[ARGS]"))),
        ("deepseek", around(["<calls_begin>", "<call_begin>", "<call_end>", "", "<calls_end>"], named("<call_sep>"))),
        (
            "deepseek_r1",
            around(
                ["<calls_begin>", "<call_begin>function<call_sep>", "\n```<call_end>", "", "<calls_end>"],
                named("\n```json\n"),
            ),
        ),
        (
            "kimi",
            around(
                ["<|section_begin|>", "<|call_begin|>functions.", "<|call_end|>", "", "<|section_end|>"],
                named(":0<|argument_begin|>"),
            ),
        ),
        ("functionary", around(["", "<function=", "</function>", "", ""], named(">"))),
        ("lfm2", around(["<|calls_start|>[", "", "", ", ", "]<|calls_end|>"], CallForm::Python)),
    ];
    let golden = golden();
    assert_eq!(golden.groups.len(), expected.len());
    for (group, (name, syntax)) in golden.groups.iter().zip(expected) {
        assert_eq!((group.name.as_str(), template(&group.template).call_syntax()), (name, Some(syntax)));
    }
    // Templates that tell nothing of functions, that write no arguments of calls, and that write no calls at all.
    let told = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}";
    let turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    for (source, expected) in [
        (turns.to_owned(), None),
        (
            format!(
                "{told}{{% for m in messages %}}{{% for c in m.tool_calls %}}<f={{{{ c.function.name }}}}>{{% endfor %}}{{% endfor %}}"
            ),
            None,
        ),
        (
            format!(
                "{told}{{% for m in messages %}}{{% for c in m.tool_calls %}}<f={{{{ c.function.name }}}}>{{% for k, v in c.function.arguments.items() %}}<{{{{ k }}}}>{{{{ v }}}}</{{{{ k }}}}>{{% endfor %}}</f>{{% endfor %}}{{% endfor %}}"
            ),
            None,
        ),
        (
            // The marks of a call and of an answer begin and end alike.
            format!(
                "{told}{{% for m in messages %}}{{% for c in m.tool_calls %}}<|START_CALL|>{{{{ c.function.name }}}} {{{{ c.function.arguments | tojson }}}}<|call_end|>{{% else %}}<|START_TEXT|>{{{{ m.content }}}}<|text_end|>{{% endfor %}}{{% endfor %}}"
            ),
            Some(around(["", "<|START_CALL|>", "", "<|call_end|>", ""], CallForm::Named(" ".into()))),
        ),
        (format!("{told}{turns}"), Some(object("", "", "arguments"))),
        (format!("{told} in <tool_call></tool_call>{turns}"), Some(hermes)),
    ] {
        assert_eq!(template(&source).call_syntax(), expected, "{source}");
    }
}

/// What functions, arguments and results spell is text, and limits hold for them.
#[test]
fn functions_are_not_trusted() {
    let call = ToolCall {
        id: "<s>".into(),
        name: "f".into(),
        arguments: json!({"<s>": ["<s>"]}).as_object().expect("an object").clone(),
    };
    let messages = [
        Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "<s>") },
        Message { tool_call_id: Some("<s>".into()), ..Message::new(Role::Tool, "<s>") },
    ];
    let mut deep = json!("<s>");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let source = "{{ tools | length }}{% for t in tools %}{{ t | tojson | length > 0 }}{% endfor %}";
    let fails = template(source).render_with_tools(&messages, &[deep], true).expect_err("too deep").to_string();
    assert!(fails.contains("nested deeper"), "{fails}");
    let many: Vec<Value> = (0..128).map(|i| json!({"type": "function", "function": {"name": format!("f{i}"), "parameters": {"properties": {"a": {"type": "string", "description": "x".repeat(1000)}}}}})).collect();
    let text = template(source).render_with_tools(&messages, &many, true).expect("within the limits");
    assert!(text.starts_with("128True"), "{text}");
    let saved = serde_json::to_string(&messages).expect("JSON");
    assert_eq!(serde_json::from_str::<Vec<Message>>(&saved).expect("messages"), messages);
    let plain = serde_json::to_string(&Message::new(Role::User, "a")).expect("JSON");
    assert_eq!(plain, r#"{"role":"user","content":"a"}"#);
}
