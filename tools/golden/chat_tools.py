"""Chats with functions, rendered by transformers: `crates/lowbit-model/tests/golden/chat_tools.json`.

    chat_tools.py TEMPLATE.jinja ..      # those whose names are in KEPT go into the file, and all others are compared only

Each group is a template and its cases: the turns, whether functions are offered, and the text that `apply_chat_template(tools=..)` makes of them
(null where it refuses them). The templates are those that models came with: Qwen2.5 and Qwen3 (Apache 2.0), as the package `trl` holds them;
beside them short ones in the way of Llama 3 and of Mistral, and of others that write calls in forms of their own. With `--all` the cases of all
templates given go to stdout.
"""

import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils


class July(datetime.datetime):
    """The day on which templates are rendered."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


chat_template_utils.datetime = July

KEPT = ["qwen2_5", "qwen3"]
LLAMA = """{{- bos_token }}
{%- if tools is not none %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nAnswer with {"name": function name, "parameters": dictionary of argument name and its value}.\\n\\n' }}
{%- for t in tools %}{{ t | tojson(indent=4) }}{{ "\\n\\n" }}{% endfor %}{{ '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
{%- if 'tool_calls' in message %}
{%- if not message.tool_calls | length == 1 %}{{ raise_exception("This model only supports single tool-calls at once!") }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' + '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}{{ "}<|eot_id|>" }}
{%- elif message.role == "tool" %}
{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
{%- if message.content is mapping or message.content is iterable %}{{ message.content | tojson }}{% else %}{{ message.content }}{% endif %}{{ "<|eot_id|>" }}
{%- else %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
"""
MISTRAL = """{{- bos_token }}
{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- for message in messages %}
{%- if message.role == "user" %}
{%- if tools is not none and message == users[-1] %}
{{- "[AVAILABLE_TOOLS] [" }}
{%- for tool in tools %}{%- set f = tool.function %}
{{- '{"type": "function", "function": {' }}
{%- for key, val in f.items() if key != "return" %}
{%- if val is string %}{{ '"' + key + '": "' + val + '"' }}{% else %}{{ '"' + key + '": ' + val | tojson }}{% endif %}
{%- if not loop.last %}{{ ", " }}{% endif %}{% endfor %}{{ "}}" }}
{%- if not loop.last %}{{ ", " }}{% else %}{{ "]" }}{% endif %}{% endfor %}{{ "[/AVAILABLE_TOOLS]" }}
{%- endif %}
{{- "[INST] " + message.content + "[/INST]" }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- "[TOOL_CALLS] [" }}
{%- for call in message.tool_calls %}
{%- if call.id|length != 9 %}{{ raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}{% endif %}
{%- set out = call.function | tojson %}{{ out[:-1] + ', "id": "' + call.id + '"}' }}{{ ", " if not loop.last else "]" + eos_token }}
{%- endfor %}
{%- elif message.role == "tool" %}
{{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- elif message.role == "assistant" %}{{ " " + message.content + eos_token }}
{%- else %}{{ raise_exception("Only user and assistant roles are supported!") }}{% endif %}
{%- endfor %}
"""

def in_the_way_of(call, before="", behind="", between=""):
    """A template whose turns are marked, and whose calls are written so; `f` is a function, `v` the value of its argument `k`."""
    return (
        "{%- macro plain(v) %}{{ v if v is string else v | tojson }}{% endmacro -%}\n"
        "{%- if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% endif -%}\n"
        "{%- for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}{% if m.tool_calls %}" + before + "{% for c in m.tool_calls %}"
        "{% set f = c.function %}" + call + "{% if not loop.last %}" + between + "{% endif %}{% endfor %}" + behind + "{% endif %}<|end|>{% endfor -%}\n"
        "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
    )


def each(text, between=""):
    return "{% for k, v in f.arguments.items() %}" + text + "{% if not loop.last %}" + between + "{% endif %}{% endfor %}"


# By the models that write calls so.
FORMS = {
    "qwen3_coder": in_the_way_of(
        "<tool_call>\n<function={{ f.name }}>\n" + each("<parameter={{ k }}>\n{{ plain(v) }}\n</parameter>\n") + "</function>\n</tool_call>",
        before="\n", between="\n"),
    "glm": in_the_way_of(
        "\n<tool_call>{{ f.name }}\n" + each("<arg_key>{{ k }}</arg_key>\n<arg_value>{{ plain(v) }}</arg_value>\n") + "</tool_call>"),
    "minimax": in_the_way_of(
        '<invoke name="{{ f.name }}">\n' + each('<parameter name="{{ k }}">{{ plain(v) }}</parameter>\n') + "</invoke>\n",
        before="<minimax:tool_call>\n", behind="</minimax:tool_call>"),
    "mistral_args": in_the_way_of("[TOOL_CALLS]{{ f.name }}[CALL_ID]{{ c.id }}[ARGS]{{ f.arguments | tojson }}"),
    "deepseek": in_the_way_of(
        "<call_begin>{{ f.name }}<call_sep>{{ f.arguments | tojson }}<call_end>", before="<calls_begin>", behind="<calls_end>"),
    "deepseek_r1": in_the_way_of(
        "<call_begin>function<call_sep>{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```<call_end>",
        before="<calls_begin>", behind="<calls_end>", between="\n"),
    "kimi": in_the_way_of(
        "<|call_begin|>functions.{{ f.name }}:{{ loop.index0 }}<|argument_begin|>{{ f.arguments | tojson }}<|call_end|>",
        before="<|section_begin|>", behind="<|section_end|>"),
    "functionary": in_the_way_of("<function={{ f.name }}>{{ f.arguments | tojson }}</function>"),
    "lfm2": in_the_way_of(
        "{{ f.name }}(" + each("{{ k }}={{ v | tojson }}", between=", ") + ")", before="<|calls_start|>[", behind="]<|calls_end|>", between=", "),
}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a place: <|im_end|> is no mark, \u00fc is \"\u00fc\".",
        "parameters": {"type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "Name of the place"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": None},
            "days": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 1.5}},
            "quotes 'here' <b>": {"type": "boolean"}}}}},
    {"type": "function", "function": {"name": "now", "description": "Tells the time", "parameters": {"type": "object", "properties": {}}}},
]


def call(name, number, **arguments):
    return {"id": f"call{number:05}", "name": name, "arguments": arguments}


def turn(role, content="", **more):
    return {"role": role, "content": content, **more}


PARIS = call("get_weather", 1, place="Paris \"<|im_end|>\" \U0001f600", days=[0, 1.5, -2, 1e30], deep={"a b": None, "t": True})
NOW = call("now", 2)
CHATS = [
    [turn("user", "Weather in Paris?")],
    [turn("system", "Be brief."), turn("user", "Hello <tool_call>")],
    [turn("user", "Paris?"), turn("assistant", tool_calls=[PARIS]), turn("tool", '{"degrees": 21}', tool_call_id="call00001", name="get_weather")],
    [turn("user", "Paris, and the time?"), turn("assistant", "I look.", tool_calls=[PARIS, NOW]),
     turn("tool", "21", tool_call_id="call00001", name="get_weather"), turn("tool", "noon", tool_call_id="call00002", name="now"),
     turn("assistant", "21 degrees, noon."), turn("user", "Thanks")],
]
SIMPLE = [
    turn("user", "Paris, and the time?"),
    turn("assistant", "I look.", tool_calls=[call("get_weather", 1, place='Paris "<b>"', days=[0, 1.5, -2], deep={"a b": None, "t": True}), NOW]),
    turn("tool", "21", tool_call_id="call00001", name="get_weather"),
]


def hub(turn):
    """A turn as transformers takes it."""
    order = {key: turn[key] for key in ("role", "content", "tool_calls", "tool_call_id", "name") if key in turn}
    if "tool_calls" in turn:
        order["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in turn["tool_calls"]]
    return order


def case(name, template, messages, offered, answer):
    known = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    tools = TOOLS if offered else None
    try:
        text = chat_template_utils.render_jinja_template(
            [[hub(message) for message in messages]], tools=tools, chat_template=template, add_generation_prompt=answer, **known
        )[0][0]
    except Exception as error:  # whatever a template raises
        print(f"{name}: {error}", file=sys.stderr)
        text = None
    return {"name": name, "messages": messages, "offered": offered, "answer": answer, "text": text}


def groups(templates):
    return [{"name": name, "template": template, "cases": [
        case(name, template, chat, offered, answer) for chat in CHATS for offered in (True, False) for answer in (True, False)
    ]} for name, template in templates.items()]


def short(templates):
    """The same with the chat that has two calls alone."""
    return [{"name": name, "template": template, "cases": [case(name, template, SIMPLE, True, False)]} for name, template in templates.items()]


given = {Path(path).stem: Path(path).read_text() for path in sys.argv[1:] if path != "--all"}
if "--all" in sys.argv:
    json.dump({"tools": TOOLS, "groups": groups(given)}, sys.stdout, ensure_ascii=False, indent=1)
else:
    kept = {name: given[name] for name in KEPT} | {"llama": LLAMA, "mistral": MISTRAL}
    with open(Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/chat_tools.json", "w") as out:
        json.dump({"tools": TOOLS, "groups": groups(kept) + short(FORMS)}, out, ensure_ascii=False, indent=1)
        out.write("\n")
