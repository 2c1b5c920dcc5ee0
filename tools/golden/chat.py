"""Chats rendered by transformers: `crates/lowbit-model/tests/golden/chat.json`.

Each case is a template, the spellings of its tokens, the turns, and the text that `apply_chat_template` makes of them
(or null where it refuses them). Templates: Llama 3 Instruct and Llama 3.2's way with dates, BitNet b1.58 2B-4T, ChatML,
one that wants turns to alternate, and one that uses what templates of the Hub use of Python.

With a directory of `.jinja` files as argument it writes the cases of these instead, to stdout.
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

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA32 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}

{#- The system message goes into its slot. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
BITNET = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = message['role'] | capitalize "
    "+ ': '+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)
CHATML = """{% for message in messages %}
    {% if loop.first and message.role != 'system' %}
<|im_start|>system
You are a helpful assistant.<|im_end|>
    {% endif %}
<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
ALTERNATE = """{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}
    {%- elif message['role'] == 'assistant' %}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}
    {%- else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}
{%- endfor %}
"""
PYTHON = """{%- macro said(message, mark='>') -%}
{{ mark ~ ' ' ~ message.content.split('\\n')|join(' / ') }}
{%- endmacro -%}
{%- set ns = namespace(n=0, last='') -%}
{%- for role, turns in {'user': messages|selectattr('role', 'equalto', 'user')|list,
                       'assistant': messages|rejectattr('role', 'equalto', 'user')|list}.items() %}
{%- for turn in turns if turn.content %}
{%- set ns.n = ns.n + turn.content|length * 2 %}{% set ns.last = turn['content'][-3:] %}
{{ said(turn, mark='#') }}{{ said(message=turn) }}
{%- if loop.last %}[{{ loop.length }}]{% else %},{% endif %}
{%- else %}none{% endfor %}
{%- if role is string and role.startswith('us') and ns.last not in ['', none] %}{{ role.upper() | lower | title }}{% endif %}
{%- endfor %}
{{ ns.n }} {{ ns.last }} {{ messages[0] | tojson }} {{ messages | map(attribute='role') | list | tojson(indent=2) }}
{{ '%s'|string }} {{ (messages[-1].content or 'x').replace('a', 'bb').rstrip('!') }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 2 ** 5 }} {{ 7 / 2 }}
{{ messages[::-1]|length }} {{ 'yes' if add_generation_prompt else 'no' }} {{ '=' * 5 }} {{ {'a': [1, 2.5, true, none]}|tojson }}
{%- for i in range(2, 8, 2) %}{% if i == 6 %}{% break %}{% endif %}{{ i }}{{ ';' if not loop.last }}{% endfor %}
{%- set kept %}  block {{ bos_token }}{% endset %}{{ kept | trim | indent(2, true) }} {{ undefined_name }}{{ undefined_name is defined }}
{{ messages|join('+', attribute='role') }} {{ none is iterable }} {{ tools is none }} {{ messages is iterable }}
"""

TURNS = [
    [("user", "Hello!")],
    [("system", " Be brief. "), ("user", "  What is 2 + 2?\nSay it.  ")],
    [("user", "Hi"), ("assistant", "Hello, na\u00efve \U0001f600."), ("user", "<b>a & b</b> \"aaa\"!")],
    [("system", "s"), ("user", "u1"), ("assistant", "a1"), ("user", "u2")],
    [("user", "u1"), ("user", "u2")],
]


def case(name, template, messages, answer):
    messages = [{"role": role, "content": content} for role, content in messages]
    known = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    try:
        text = chat_template_utils.render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=answer, **known
        )[0][0]
    except Exception as error:  # whatever a template raises
        print(f"{name}: {error}", file=sys.stderr)
        text = None
    return {"name": name, "messages": messages, "answer": answer, "text": text}


def write(templates, out):
    groups = []
    for name, template in templates.items():
        cases = [case(name, template, turns, answer) for turns in TURNS for answer in (True, False)]
        groups.append({"template": template, "cases": cases})
    json.dump(groups, out, ensure_ascii=False, indent=1)
    out.write("\n")


if len(sys.argv) > 1:
    write({path.name: path.read_text() for path in sorted(Path(sys.argv[1]).glob("*.jinja"))}, sys.stdout)
else:
    ours = {"llama3": LLAMA3, "llama3.2": LLAMA32, "bitnet": BITNET, "chatml": CHATML, "alternate": ALTERNATE, "python": PYTHON}
    with open(Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/chat.json", "w") as out:
        write(ours, out)
