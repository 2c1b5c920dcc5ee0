//! Calls of functions: which are offered, which must be called, and how calls are told in each interface.

mod common;

use common::{Running, chat, plain, with, with_template, with_tools};
use serde_json::{Value, json};

fn weather() -> Value {
    let parameters = json!({
        "type": "object", "additionalProperties": false, "required": ["city", "days"],
        "properties": {"city": {"enum": ["Paris", "Rome", "a \"b\""]}, "days": {"$ref": "#/$defs/days"}},
        "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 7}},
    });
    json!({"type": "function", "function": {"name": "get_weather", "description": "Tells the weather.", "parameters": parameters}})
}

fn clock() -> Value {
    json!({"type": "function", "function": {"name": "now"}})
}

/// A function that takes anything.
fn free() -> Value {
    json!({"type": "function", "function": {"name": "free", "parameters": {"type": "object"}}})
}

/// A chat that must call something.
fn calling(choice: Value, seed: u64) -> Value {
    let base = with(chat("Weather?", 300), json!({"logit_bias": {}, "temperature": 1, "seed": seed}));
    with(base, json!({"tools": [weather(), clock()], "tool_choice": choice}))
}

/// The arguments of a call of the weather, which follow its schema.
fn checked(arguments: &Value) -> Value {
    let text = arguments.as_str().expect("a text");
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let (city, days) = (value["city"].as_str(), value["days"].as_u64());
    assert!(city.is_some_and(|city| ["Paris", "Rome", "a \"b\""].contains(&city)), "{text}");
    assert!(
        days.is_some_and(|days| (1..=7).contains(&days)) && value.as_object().is_some_and(|o| o.len() == 2),
        "{text}"
    );
    value
}

#[test]
fn a_function_that_must_be_called_is() {
    let server = with_tools();
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for seed in 0..4 {
        let answer = server.post("/v1/chat/completions", &calling(named.clone(), seed)).json();
        let choice = &answer["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"]),
            (&json!("tool_calls"), &Value::Null),
            "{answer}"
        );
        let [call] = &choice["message"]["tool_calls"].as_array().expect("calls")[..] else { panic!("{answer}") };
        assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("get_weather")));
        assert!(call.get("index").is_none() && call["id"].as_str().is_some_and(|id| id.len() == 9), "{call}");
        checked(&call["function"]["arguments"]);
        // The same in pieces.
        let asked = with(calling(named.clone(), seed), json!({"stream": true}));
        let events = server.post("/v1/chat/completions", &asked).events();
        let deltas: Vec<&Value> =
            events.iter().flat_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array()).flatten().collect();
        let [head, rest @ ..] = &deltas[..] else { panic!("{events:?}") };
        assert_eq!(
            (&head["index"], &head["type"], &head["function"]),
            (&json!(0), &json!("function"), &json!({"name": "get_weather", "arguments": ""}))
        );
        assert!(head["id"].is_string() && rest.iter().all(|delta| delta.get("id").is_none() && delta["index"] == 0));
        let arguments: String = rest.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
        assert_eq!(json!(arguments), call["function"]["arguments"]);
        assert!(events.iter().all(|event| event["choices"][0]["delta"].get("content").is_none()), "{events:?}");
        assert_eq!(events.last().expect("events")["choices"][0]["finish_reason"], json!("tool_calls"));
    }
}

/// Calls of templates that write no JSON objects are forced and found in the way of these.
#[test]
fn calls_are_forced_as_the_template_writes_them() {
    let each = |text: &str, between: &str| {
        format!(
            "{{% for k, v in f.arguments.items() %}}{text}{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}"
        )
    };
    let marked = each("<p={{ k }}>{{ v if v is string else v | tojson }}</p>", "");
    let python = each("{{ k }}={{ v | tojson }}", ", ");
    for written in [
        "<calls><call>{{ f.name }}<sep>{{ f.arguments | tojson }}</call></calls>".to_owned(),
        format!("<call={{{{ f.name }}}}>{marked}</call>"),
        format!("<calls>[{{{{ f.name }}}}({python})]</calls>"),
    ] {
        let server = with_template(&format!(
            "{{{{ tools | tojson if tools }}}}{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ m.content }}}}{{% for c in m.tool_calls %}}{{% set f = c.function %}}{written}{{% endfor %}}{{% endfor %}}<assistant>"
        ));
        let named = json!({"type": "function", "function": {"name": "get_weather"}});
        for seed in 0..2 {
            let answer = server.post("/v1/chat/completions", &calling(named.clone(), seed)).json();
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], json!("tool_calls"), "{written}: {answer}");
            assert_eq!(choice["message"]["content"], Value::Null, "{written}: {answer}");
            checked(&choice["message"]["tool_calls"][0]["function"]["arguments"]);
            // Arguments that are not required come or not.
            let unit = json!({
                "type": "object", "additionalProperties": false,
                "properties": {"unit": {"enum": ["C", "F"]}, "exact": {"type": "boolean"}},
            });
            let tool = json!({"type": "function", "function": {"name": "unit", "parameters": unit}});
            let asked = with(calling(json!("required"), seed), json!({"tools": [tool], "parallel_tool_calls": false}));
            let answer = server.post("/v1/chat/completions", &asked).json();
            let arguments = answer["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str();
            let arguments: Value =
                serde_json::from_str(arguments.unwrap_or_else(|| panic!("{written}: {answer}"))).expect("JSON");
            let fits = |(key, value): (&String, &Value)| match key.as_str() {
                "unit" => value == "C" || value == "F",
                _ => key == "exact" && value.is_boolean(),
            };
            assert!(arguments.as_object().expect("an object").iter().all(fits), "{answer}");
        }
    }
}

#[test]
fn any_function_may_be_the_one_that_is_required() {
    let server = with_tools();
    let mut names = Vec::new();
    for seed in 0..8 {
        // The model likes one of them more: without the first letter of its name it calls the other.
        let bias = if seed < 4 { json!({"110": -100}) } else { json!({}) };
        let more = json!({"n": 2, "parallel_tool_calls": seed % 2 == 0, "logit_bias": bias});
        let asked = with(calling(json!("required"), seed), more);
        let answer = server.post("/v1/chat/completions", &asked).json();
        for choice in answer["choices"].as_array().expect("choices") {
            let calls = choice["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{answer}"));
            assert!(!calls.is_empty() && (seed % 2 == 0 || calls.len() == 1), "{answer}");
            for call in calls {
                let name = call["function"]["name"].as_str().expect("a name");
                if name == "get_weather" {
                    checked(&call["function"]["arguments"]);
                }
                names.push(name.to_owned());
            }
        }
    }
    assert!(["get_weather", "now"].iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    // Also where anything may be its arguments these parse, unless their length cuts them.
    for seed in 0..12 {
        let asked = with(calling(json!("required"), seed), json!({"tools": [free()], "parallel_tool_calls": false}));
        let choice = server.post("/v1/chat/completions", &asked).json()["choices"][0].clone();
        match choice["message"]["tool_calls"].as_array() {
            Some(calls) => {
                let arguments = calls[0]["function"]["arguments"].as_str().expect("a text");
                assert!(serde_json::from_str::<Value>(arguments).is_ok_and(|value| value.is_object()), "{arguments}");
            }
            None => assert_eq!(choice["finish_reason"], json!("length"), "{choice}"),
        }
    }
}

#[test]
fn functions_are_part_of_the_prompt_where_they_may_be_called() {
    let server = with_tools();
    let tokens = |more: Value| server.post("/v1/chat/completions", &with(chat("Weather?", 8), more)).json();
    let none = tokens(json!({}));
    let count = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().expect("a number");
    let told = tokens(json!({"tools": [weather()], "tool_choice": "auto"}));
    let (text, spaced) = (weather().to_string(), weather().to_string().matches([':', ',']).count());
    assert!(count(&told) > count(&none) + text.len() as u64 - spaced as u64, "{told}");
    assert!(told["choices"][0]["message"]["content"].is_string() && told["choices"][0]["finish_reason"] == "length");
    for more in
        [json!({"tools": [weather()], "tool_choice": "none"}), json!({"tools": []}), json!({"tool_choice": "auto"})]
    {
        let answer = tokens(more);
        assert_eq!(answer["choices"][0]["message"], none["choices"][0]["message"]);
        assert_eq!(count(&answer), count(&none));
    }
    // Calls of earlier turns and their results go back in.
    let calls =
        json!([{"id": "call00001", "type": "function", "function": {"name": "now", "arguments": "{\"a\": [1]}"}}]);
    let messages = json!([
        {"role": "user", "content": "a"}, {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call00001", "content": "noon"},
    ]);
    let back = tokens(json!({"messages": messages}));
    let text = "<user>a<assistant>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": [1]}}\n</tool_call><tool>noon<assistant>";
    assert_eq!(count(&back), text.len() as u64);
}

#[test]
fn tools_that_cannot_be_are_refused() {
    let (server, without) = (with_tools(), plain());
    let function =
        |function: Value| json!({"tools": [{"type": "function", "function": function}], "tool_choice": "auto"});
    let earlier = |arguments: &str| {
        let calls = json!([{"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
        json!({"messages": [{"role": "assistant", "content": "", "tool_calls": calls}]})
    };
    for (more, param) in [
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
        (json!({"tools": [3]}), "tools[0].type"),
        (function(json!({})), "tools[0].function.name"),
        (function(json!({"name": "a b"})), "tools[0].function.name"),
        (function(json!({"name": "f", "parameters": []})), "tools[0].function.parameters"),
        (function(json!({"name": "f", "parameters": {"type": "string"}})), "tools[0].function.parameters"),
        (function(json!({"name": "f", "description": 3})), "tools[0].function.description"),
        (
            function(json!({"name": "f", "parameters": {"properties": {"a": {"type": "string", "pattern": "(a"}}}})),
            "tools",
        ),
        (function(json!({"name": "f", "parameters": {"properties": {"a": {"type": "wizard"}}}})), "tools"),
        (
            function(json!({"name": "f", "parameters": {"properties": {"a": {"$ref": "https://example.org/x"}}}})),
            "tools",
        ),
        (json!({"tools": [clock(), clock()]}), "tools[1]"),
        (json!({"tools": vec![clock(); 129]}), "tools"),
        (json!({"tools": [clock()], "tool_choice": "always"}), "tool_choice"),
        (
            json!({"tools": [clock()], "tool_choice": {"type": "function", "function": {"name": "other"}}}),
            "tool_choice",
        ),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [clock()], "response_format": {"type": "json_object"}}), "response_format"),
        (earlier("[1]"), "messages[0].tool_calls[0].function.arguments"),
        (earlier("{\"a\""), "messages[0].tool_calls[0].function.arguments"),
        (
            json!({"messages": [{"role": "user", "content": "a", "tool_calls": [{"function": {"name": "f"}}]}]}),
            "messages[0].tool_calls",
        ),
        (json!({"messages": [{"role": "tool"}]}), "messages[0].content"),
    ] {
        let refused = server.post("/v1/chat/completions", &with(chat("x", 4), more));
        assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some(param)), "{}", refused.text());
    }
    let refused = without.post("/v1/chat/completions", &with(chat("x", 4), json!({"tools": [clock()]})));
    assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some("tools")));
    assert!(refused.text().contains("takes no tools"), "{}", refused.text());
}

/// Names of the events of a stream without repetitions in a row, and their values.
fn events(server: &Running, path: &str, asked: &Value) -> Vec<Value> {
    let answer = server.post(path, &with(asked.clone(), json!({"stream": true})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let data = |event: &str| serde_json::from_str(event.split_once("\ndata: ").expect("data").1).expect("JSON");
    answer.text().split("\n\n").filter(|event| !event.is_empty()).map(data).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let mut kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    kinds.dedup();
    kinds
}

#[test]
fn messages_call_functions_as_anthropic_has_it() {
    let server = with_tools();
    let tool = json!({"name": "get_weather", "description": "Tells the weather.", "input_schema": weather()["function"]["parameters"]});
    let asked = json!({
        "messages": [{"role": "user", "content": "Weather?"}], "max_tokens": 300, "temperature": 0, "tools": [tool],
        "tool_choice": {"type": "tool", "name": "get_weather"},
    });
    let whole = server.post("/v1/messages", &asked).json();
    assert_eq!(whole["stop_reason"], json!("tool_use"), "{whole}");
    let [call] = &whole["content"].as_array().expect("blocks")[..] else { panic!("{whole}") };
    assert_eq!((&call["type"], &call["name"]), (&json!("tool_use"), &json!("get_weather")));
    checked(&json!(call["input"].to_string()));
    let streamed = events(&server, "/v1/messages", &asked);
    let order = [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(kinds(&streamed), order);
    let arguments: String = streamed.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).expect("JSON"), call["input"]);
    assert_eq!(streamed[1]["content_block"]["name"], json!("get_weather"));
    // The call and its result go back in: the prompt is that of the same chat.
    let turns = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "x", "name": "now", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "noon"}]}, {"type": "text", "text": "b"}]},
    ]);
    let back = server.post("/v1/messages", &json!({"messages": turns, "max_tokens": 2})).json();
    let text = "<user>a<assistant>I look.\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"a\": 1}}\n</tool_call><tool>noon<user>b<assistant>";
    assert_eq!(back["usage"]["input_tokens"], json!(text.len()));
    for (more, param) in [
        (json!({"tools": [{"type": "bash_20250124", "name": "bash"}]}), "tools[0].type"),
        (json!({"tool_choice": {"type": "some"}}), "tool_choice"),
        (json!({"tools": [{"name": "f", "input_schema": 3}], "tool_choice": null}), "tools[0].input_schema"),
        (
            json!({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]}),
            "messages[0].content[0].id",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "f"}]}]}),
            "messages[0].content[0].type",
        ),
    ] {
        let refused = server.post("/v1/messages", &with(asked.clone(), more));
        assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some(param)), "{}", refused.text());
    }
}

#[test]
fn responses_call_functions_and_have_forms() {
    let server = with_tools();
    let tool = with(json!({"type": "function"}), weather()["function"].clone());
    let asked = json!({"input": "Weather?", "temperature": 0, "max_output_tokens": 300, "tools": [tool], "tool_choice": "required", "parallel_tool_calls": false});
    let whole = server.post("/v1/responses", &asked).json();
    assert_eq!(whole["status"], json!("completed"), "{whole}");
    let [call] = &whole["output"].as_array().expect("items")[..] else { panic!("{whole}") };
    assert_eq!(
        (&call["type"], &call["name"], &call["status"]),
        (&json!("function_call"), &json!("get_weather"), &json!("completed"))
    );
    checked(&call["arguments"]);
    let streamed = events(&server, "/v1/responses", &asked);
    let order = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(kinds(&streamed), order);
    assert_eq!(streamed[4]["arguments"], call["arguments"]);
    let items = json!([
        {"role": "user", "content": "a"}, {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "x", "name": "now", "arguments": "{}"},
        {"type": "function_call", "call_id": "y", "name": "now", "arguments": ""},
        {"type": "function_call_output", "call_id": "x", "output": "noon"},
    ]);
    let back = server.post("/v1/responses", &json!({"input": items, "max_output_tokens": 2})).json();
    let call = "\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let text = format!("<user>a<assistant>{call}{call}<tool>noon<assistant>");
    assert_eq!(back["usage"]["input_tokens"], json!(text.len()));
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"format": {"type": "json_schema", "name": "x", "schema": schema}});
    let formed = server.post("/v1/responses", &json!({"input": "a", "text": format, "max_output_tokens": 100})).json();
    let text = formed["output"][0]["content"][0]["text"].as_str().expect("a text").to_owned();
    assert!(["{\"a\": 1}", "{\"a\": 2}"].contains(&text.as_str()), "{text}");
    assert_eq!(formed["text"], format);
}

#[test]
fn completions_have_forms_and_may_go_on() {
    let server = plain();
    let base = json!({"prompt": "Hello", "max_completion_tokens": 40, "seed": 1});
    let format = json!({"response_format": {"type": "regex", "regex": "(yes|no)!"}});
    let answer = server.post("/v1/completions", &with(base.clone(), format.clone())).json();
    let choice = &answer["choices"][0];
    assert!(
        ["yes!", "no!"].contains(&choice["text"].as_str().expect("a text")) && choice["finish_reason"] == "stop",
        "{answer}"
    );
    let bias = json!({"logit_bias": {"257": 100}, "temperature": 0});
    let tokens = |more: Value| {
        server.post("/v1/completions", &with(with(base.clone(), bias.clone()), more)).json()["usage"]["completion_tokens"].clone()
    };
    assert_eq!((tokens(json!({})), tokens(json!({"ignore_eos": true}))), (json!(0), json!(40)));
    let refused = server.post("/v1/completions", &with(with(base, format), json!({"ignore_eos": true})));
    assert_eq!((refused.status, refused.error()["param"].as_str()), (400, Some("ignore_eos")));
}
