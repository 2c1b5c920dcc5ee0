"""What templates call, rendered by transformers: `crates/lowbit-model/tests/golden/chat_functions.json`.

Each case is a template and its text for two messages, or null where transformers refuses it. The templates walk Jinja's filters,
tests, functions and statements and the methods of Python's strings, lists and dicts, on constants and on what was said.
"""

import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils


class Day(datetime.datetime):
    """The moment at which templates are rendered."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 9, 7, 5, 4)


chat_template_utils.datetime = Day

MESSAGES = [
    {"role": "user", "content": "<think>Why, \"na\u00efve\" one?</think> a=1, b=22 <|im_end|>\n\tLINE two\r\nend! \U0001f600 "},
    {"role": "assistant", "content": "x"},
]
# `c` is what was said first, `t` a constant with the same characters.
BEGIN = "{% set c = messages[0].content %}{% set t = 'aXbXc  dd' %}"

STRINGS = """
c.split('</think>')[-1].lstrip('\\n').rstrip() | c.split('</think>')[0].split('<think>')[-1] | c.split() | c.split(' ', 2) | c.split(sep=',', maxsplit=1)
c.rsplit(' ', 1) | c.rsplit() | c.rsplit(None, 2) | c.partition('=') | c.rpartition('=') | c.partition('zz') | c.rpartition('zz')
c.splitlines() | c.splitlines(true) | c.strip() | c.strip('<e! \\U0001f600') | c.lstrip('<thin>k') | c.rstrip(' \\U0001f600!') | t.strip('a') | t.split('X') | t.split('X', 1)
c.replace('think', 'thought') | c.replace('n', 'NN', 2) | t.replace('X', '', 1) | t.replace('X', '-', count=1) | c.removeprefix('<think>') | c.removesuffix('! ') | t.removeprefix('aX')
c.find('naive') | c.find('one') | c.rfind('e') | c.index('a=1') | c.rindex('<') | c.count('e') | c.count('') | t.find('X', 2) | t.find('X', -3, 9) | c.index('zz')
c.startswith('<think>') | c.startswith(('x', '<th')) | c.endswith('\\U0001f600 ') | c.startswith('think', 1) | c.endswith(('a', 'b')) | t.endswith('dd')
c.upper() | c.lower() | c.title() | c.capitalize() | c.swapcase() | c.casefold() | '\\u00df\\u01c6'.upper() | "they're bill's".title() | 'it\\'s 3rd'.capitalize()
c.isalpha() | '12'.isdigit() | '1a'.isalnum() | ' \\t'.isspace() | 'Ab'.istitle() | 'AB'.isupper() | 'ab1'.islower() | 'a_1'.isidentifier() | '\\u00b2'.isdigit() | '\\u00b2'.isdecimal() | '\\u00bd'.isnumeric() | c.isascii() | ''.isascii() | 'a\\n'.isprintable()
'ab'.center(7) | 'ab'.center(8, '*') | 'ab'.ljust(5) ~ '|' | 'ab'.rjust(5, '.') | '-42'.zfill(6) | 'a\\tb'.expandtabs(4)
', '.join(['a', 'b']) | c.join(['1', '2']) | ''.join(c.split()) | '{} and {}'.format('a', c) | '{0}{1}{0}'.format('a', 'b') | '{x:>4}|{y:.2f}'.format(x='a', y=3.14159) | '{:05d}|{:x}|{:,}'.format(42, 255, 1234567) | '{a[0]}'.format(a=[7])
'%s is %d, %.2f and %5s|%-5s|' % ('a', 3, 2.5, 'b', 'c') | '%s' % c | '100%% of %s' % 'a' | '%x %o %e %r' % (255, 8, 12.5, 'q') | '%(k)s' % {'k': 'v'} | '%05d' % 42
c[0] | c[-2] | c[2:5] | c[::-1] | c[:-3:2] | c[100:] | t[1] | 'abc'[5] | c|length | c|count | t * 2 | c ~ 1 ~ none ~ true ~ 1.0 | 'a' + c + 'b'
'think' in c | 'zz' in c | 'zz' not in c | c == t | c != t | c < 'z' | c in [t, c] | '<|im_end|>' in c | {'a': c} == {'a': c} | c is string | c is eq c | t is in ['aXbXc  dd']
c.nope() | t.format_map({}) | 'a'.zfill() | c.split('')
"""
FILTERS = """
c|trim | c|trim('<e! \\U0001f600') | t|trim('a') | c|upper | c|lower | c|title | c|capitalize | "it's o'neil-smith (x)"|title | 'ABC dEF'|capitalize
c|replace('think', 'T') | t|replace('X', '-', 1) | 5|replace('5', '6') | c|escape | c|e | '<a&"\\''|forceescape | '<b>bold</b> &amp; x <!-- c -->'|striptags
c|wordcount | 'one two'|wordcount | c|truncate(20) | c|truncate(20, true) | c|truncate(20, true, '..', 0) | 'foo bar baz qux'|truncate(9) | 'foo bar baz qux'|truncate(11, False, '...') | 'foo bar'|truncate(5, leeway=5)
c|indent | 'a\\nb\\n\\nc'|indent(2) | 'a\\nb\\n\\nc'|indent(2, true) | 'a\\nb\\n\\nc'|indent(2, blank=true) | 'a\\nb'|indent('> ') | 'a\\nb\\n\\nc'|indent(width=3, first=true, blank=true)
'ab'|center(8) ~ '|' | 'a long text to be wrapped at some width'|wordwrap(12) | 'a%20b c/d?e=\\u00e9'|urlencode | {'a': 1, 'b c': 'd&'}|urlencode | c|urlencode
'%s-%s'|format('a', 'b') | '%s'|format(c) | '%(x)s'|format(x=1) | 123456|filesizeformat | 1000|filesizeformat(true) | 0|filesizeformat
'42'|int | 'x'|int | 'x'|int(7) | '0x1f'|int(0, 16) | '3.7'|int | 3.9|int | '3.5'|float | 'x'|float | 'x'|float(1.5) | none|int | '1e3'|float | true|int
3.14159|round(2) | 2.5|round | 3.5|round | 2.675|round(2, 'floor') | 2.1|round(0, 'ceil') | 42|round | -3|abs | -2.5|abs
[3, 1, 2]|sort | ['b', 'A', 'c']|sort | ['b', 'A', 'c']|sort(case_sensitive=true) | [3, 1, 2]|sort(reverse=true) | messages|sort(attribute='role')|map(attribute='role')|list | {'b': 1, 'A': 2}|dictsort | {'b': 1, 'a': 2}|dictsort(by='value') | {'b': 1, 'a': 2}|dictsort(reverse=true)
[1, 2, 1]|unique|list | ['a', 'A']|unique|list | [1, 2, 3]|sum | messages|map(attribute='content')|map('length')|sum | [{'a': 1}, {'a': 2}]|sum(attribute='a') | [1, 2]|sum(start=10) | [1, 5, 2]|max | ['b', 'a']|min | []|max
[1, 2, 3, 4, 5]|batch(2)|list | [1, 2, 3]|batch(2, 'x')|list | [1, 2, 3, 4, 5]|slice(2)|list | [1, 2, 3]|slice(2, 'x')|list | [1, 2, 3]|first | [1, 2, 3]|last | []|first | 'abc'|first | c|last | 'abc'|reverse | c|reverse | [1, 2]|reverse|list
messages|map(attribute='role')|join(', ') | messages|join(' / ', attribute='role') | [1, none, true]|join('-') | 'abc'|join('.') | ['a', 'b']|map('upper')|list | [1, 2, 3]|select('odd')|list | [1, 2, 3]|reject('odd')|list | [0, 1, '']|select|list
messages|selectattr('role', 'equalto', 'user')|map(attribute='role')|list | messages|selectattr('content', 'eq', 'x')|list|length | messages|rejectattr('role', 'in', ['user'])|list|length | messages|selectattr('name')|list | messages|selectattr('name', 'defined')|list | messages|map(attribute='name', default='none')|list | messages|selectattr('content', 'ne', c)|list|length
messages|groupby('role')|map('first')|list | messages|groupby('role')|length | c|list|length | c|string == c | 5|string | none|default('d') | undefined_name|default('d') | ''|default('d', true) | ''|d('d') | false|default('d', boolean=true) | c|default('d')|length | {'a': 1}|items|list | {'a': 1}|attr('a')
{'a': [1, 2.5, true, none, 'x<\\u00e9"\\\\']}|tojson | c|tojson | c|tojson(ensure_ascii=true) | [1, [2, {'a': {}}], []]|tojson(indent=2) | {'b': 1, 'a': 2}|tojson(sort_keys=true) | [1, 2]|tojson(separators=(',', ':')) | {'a': 1}|tojson(indent=4, separators=(',', ': ')) | 1e20|tojson | 1.0|tojson | 0.1|tojson | 1e-7|tojson | '\\x7f\\u2028\\x00\\b\\f'|tojson | {1: 2, none: 3}|tojson | 12345678901234567890|tojson | [1]|tojson(indent='--') | 1e16|tojson | 123456789.125|tojson
c|pprint | [1, 'a']|pprint | c|wordwrap(10) | c|center(80) | ['a', c]|string | {'a': c, 'b': [none, true, 1.5, "it's", 'q"']}|string | c|safe == c | c|map('upper')|join | [c]|map('replace', 'think', 'T')|list | [[1, 2], [3]]|map('sum')|list | [c]|map('trim')|join | [1, 2, 3]|map('string')|join | ['10', '9']|map('int')|list
c|nofilter | c is notest | nofunction() | [1, 2]|join(', ')|upper | 'a,b'|split(',')
"""
VALUES = """
[1, 'a', none, true, 1.0, "it's"] | (1, 2) | (1,) | () | {} | {'a': 1, 2: 'b'} | none | true | 1.5 | 1e100 | -0.0 | 1e16 | 1e15 | 123456789.123 | 1e-5 | 0.0001 | 10 ** 20 | 2 ** 0.5 | 7 // 2 | -7 // 2 | 7 % 3 | -7 % 3 | 7.5 % 2 | 7 / 2 | 6 / 2 | 1 + 1.0 | 2 * 3.0
[3, 4].index(4) | [1, 1, 2].count(1) | (1, 2).index(2) | [1, 2].copy() | [1].append(2) | [2, 1].sort() | [1].index(5) | messages.index(messages[1]) | [c, t].index(c)
{'a': 1}.get('a') | {'a': 1}.get('b') | {'a': 1}.get('b', 'd') | {'a': 1}.items()|list | {'a': 1}.keys()|list | {'a': 1}.values()|list | {'a': 1}.copy() | {'a': 1}.update({'b': 2}) | {'a': 1}.pop('a') | {'a': 1}['a'] | {'a': 1}.a | {'a': 1}['b'] | {'items': 1}['items'] | messages[0].get('role') | messages[0].keys()|list | 'a' in {'a': 1}
[1, 2] + [3] | (1,) + (2,) | [1] * 3 | [1, 2, 3][1:] | [1, 2, 3][::-1] | [1, 2, 3][-1] | [1][5] | [1, 2] == [1, 2] | (1, 2) == (1, 2) | [1] == (1,) | 1 == 1.0 | '1' == 1 | none == false | [1, [2]] < [1, [3]] | 1 in [1] | 1 < 2 < 3 | 1 < 3 < 2 | not 1 | 1 and 2 | 0 or 'x' | '' and 1 | 'a' if false | 'a' if false else 'b'
undefined_name | undefined_name.x | undefined_name is defined | undefined_name == undefined_name | undefined_name|length | undefined_name|list | undefined_name ~ 'x' | undefined_name is none | not undefined_name | undefined_name or 'x' | messages[0].nokey | messages[0].nokey is defined | messages[0]['nokey'] is undefined | messages[9] is defined | undefined_name + 'x' | undefined_name.upper() | 'x' in undefined_name | undefined_name | string
range(3)|list | range(1, 8, 3)|list | range(5, 0, -2)|list | range(3)|last | dict(a=1, b='c') | dict([('a', 1)]) | dict({'a': 1}, b=2) | cycler is defined | joiner is defined | namespace is defined | range is callable
1 is number | 1.0 is number | 1 is integer | 1.0 is float | true is boolean | true is number | true is integer | 'a' is string | [1] is sequence | 'a' is sequence | {} is mapping | {} is sequence | 'a' is iterable | 1 is iterable | none is none | 3 is odd | 4 is even | 9 is divisibleby(3) | 'a' is lower | 'A' is upper | 1 is sameas 1 | none is sameas none | 2 is gt 1 | 2 is ge(2) | 1 is lt 2 | 1 is le 0 | 1 is ne 2 | 1 is == 1 | 2 is greaterthan 1 | 1 is lessthan 2 | 'upper' is filter | 'nope' is filter | 'odd' is test | true is true | false is false | 1 is true | c is lower | dict is callable | c is callable | x is undefined | messages is sequence | messages[0] is mapping | c is not none | c is escaped | 1 is in [1, 2]
strftime_now('%Y-%m-%d') | strftime_now('%d %b %Y') | strftime_now('%A, %B %d, %Y') | strftime_now('%H:%M:%S.%f') | strftime_now('%I:%M %p') | strftime_now('%j %U %W %w %u %V %G') | strftime_now('%-d/%-m/%y %-H %-I') | strftime_now('%e|%D|%F|%T|%R|%h|%C|%n|%t|%%') | strftime_now('%a %x %X') | strftime_now('%c') | strftime_now('%z%Z') | strftime_now('%_d %^a %k %l %s'[:11]) | strftime_now('\\u00e9 %d')
messages|length | messages[-1].role | messages[0]['role'] | (messages|first).role | messages[1:]|length | messages[::-1][0].role | messages[0:1][0].role | messages|string == messages|string | messages[1] | add_generation_prompt | tools | documents | bos_token ~ eos_token ~ pad_token | unk_token is defined
"""
STATEMENTS = [
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}{{ loop.depth }}{{ loop.depth0 }}{% if loop.previtem is defined %}{{ loop.previtem.role }}{% endif %}{% if loop.nextitem is defined %}{{ loop.nextitem.role }}{% endif %}{{ loop.changed(m.role) }};{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for ch in 'abc' %}{{ ch }}.{% endfor %}",
    "{% for i in range(5) if i is odd %}{{ loop.index }}:{{ i }} {% else %}none{% endfor %}{% for i in [] %}{% else %}empty{% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.l }}{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set block %}x{{ a }}{% endset %}{{ block }}{% set up | upper %}abc{% endset %}{{ up }}",
    "{% macro m(a, b='d', c=none) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(1, 2, 3) }}{{ m.name }}",
    "{% macro m(a) %}[{{ a }}{{ caller('x') }}]{% endmacro %}{% call(v) m(1) %}<{{ v }}>{% endcall %}",
    "{% macro m() %}{{ c }}{% endmacro %}{{ m() }}|{{ m() is string }}|{{ (m() ~ '')|length }}",
    "{% with x = 1, y = 2 %}{{ x }}{{ y }}{% endwith %}{{ x is defined }}{% filter upper %}ab{{ c[:4] }}{% endfilter %}",
    "{% set j = joiner(', ') %}{% for i in range(3) %}{{ j() }}{{ i }}{% endfor %}{% set j = joiner() %}{{ j() }}{{ j() }}",
    "{% set c2 = cycler('a', 'b') %}{{ c2.next() }}{{ c2.current }}{{ c2.next() }}{{ c2.next() }}{% if c2.reset() %}{% endif %}{{ c2.current }}",
    "{% generation %}{% set x = 1 %}a{{ x }}{% endgeneration %}{{ x is defined }}{% for m in messages %}{% generation %}{{ loop.index }}{% endgeneration %}{% endfor %}",
    "{%- generation -%}  a  {%- endgeneration -%}  b",
    "{% if c %}y{% endif %}{% if not c %}n{% elif c is string %}s{% else %}e{% endif %}{% if '' %}{% else %}e{% endif %}{{ 1 if c else 2 }}",
    "{{ raise_exception('no ' ~ c) }}", "{{ raise_exception() }}", "{% if false %}{{ raise_exception('x') }}{% endif %}fine",
    "a\r\nb\rc\n{% set x = 'p\r\nq' %}{{ x|length }}\r\n{% if true %}\r\n  y\r\n{% endif %}\r\nz\r\n",
    "x\n", "x\n\n", "x\r\n", "\n{% if true %}\n  a\n  {% endif %}\n  b  \n", "  {%+ if true %}a{% endif %}\n{% if true -%}\n  b  {%- endif +%}\nc",
    "  {# c #}  \nx {# c #} y\n  {#- d -#}  z", "{{- ' a ' -}}  b  {{- messages[0].content[:2] -}}\n c", "  {% raw %}{{ x }} {% if %}{% endraw %}  y\n{% raw %}\n  a\n{% endraw %}\nb",
    "a {%- if true %} b {%- endif %} c\n\t{% set x = 1 %}\n\td", "{{ '{{' }}{{ '%}' }}{% set s = '{% x %}' %}{{ s }}", "{{ 'a' 'b' }}", "{{ \"a\\n\\t\\\\\\\"\\u00e9\\x41\" }}{{ 'a\\nb' }}{{ 'q\\q' }}",
    "{{ 1_000 }}{{ 0x1f }}{{ 0b11 }}{{ 0o17 }}{{ 1.5e3 }}{{ 1e3 }}", "{{ c.split('\\n')[0][:3] ~ (c.split('</think>')|last).strip()[:3] }}",
    "{% for m in messages recursive %}{{ m.role }}{% endfor %}", "{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for a, (b, d) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ d }}{% endfor %}",
    "{% set x = [] %}{% if x.append(1) %}{% endif %}{{ x }}", "{% do 1 %}", "{% include 'x' %}", "{% extends 'x' %}", "{% block b %}x{% endblock %}", "{% trans %}x{% endtrans %}", "{% debug %}",
    "{{ c.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ messages.__len__() }}", "{{ [1,2,3][0] }}{{ {'a':{'b':1}}.a.b }}{{ ({'a':1}).a }}{{ 'a'.upper().lower() }}",
    "{{ messages|map('attr', 'role')|list }}", "{{ messages|map('trim')|list|length }}", "{{ c|trim|length == (c.strip())|length }}", "{{ '%s' % messages[1].role }}", "{{ loop is defined }}",
    "{%- set parts = c.split('<think>') %}{%- if parts|length > 1 %}{{ parts[1].split('</think>')[1].lstrip() }}{% endif %}",
    "{%- if c is string and '<|im_end|>' in c and c.startswith('<') and not c.endswith('>') %}{{ c[1:6]|upper + c.replace('<', '[')[:3] }}{% endif %}",
    "{% set k = 'a=1' %}{{ c.index(k) }}{{ c[c.index(k):c.index(k) + 3] }}{{ {c: 1}[c] }}{{ {'a': 1}[c[c.index('a=')]] }}{{ {c: 2}.get(c) }}",
    "{{ (c ~ '')[0] == '<' }}{{ c|first }}{{ c|list|first }}{{ [c]|first == c }}{{ c|replace(c[0], '(') == c.replace('<', '(') }}{{ c|int(5) }}{{ (c.split('=')[1][0])|int + 1 }}",
]


def expressions(text):
    return [BEGIN + "{{ " + e.strip() + " }}" for line in text.strip().splitlines() for e in line.split(" | ")]


def render(source):
    try:
        known = {"bos_token": "<s>", "eos_token": "</s>"}
        return chat_template_utils.render_jinja_template(
            [MESSAGES], chat_template=source, add_generation_prompt=True, **known
        )[0][0]
    except Exception as error:  # whatever a template raises
        print(f"{source}: {type(error).__name__} {error}", file=sys.stderr)
        return None


if __name__ == "__main__":
    sources = [e for text in (STRINGS, FILTERS, VALUES) for e in expressions(text)] + [
        source if source[:1] in "xa \n" or "{{- c" in source else BEGIN + source
        for source in STATEMENTS
    ]
    cases = [{"template": source, "text": render(source)} for source in sources]
    out = Path(__file__).parents[2] / "crates/lowbit-model/tests/golden/chat_functions.json"
    with open(out, "w") as file:
        json.dump({"messages": MESSAGES, "cases": cases}, file, ensure_ascii=False, indent=0)
        file.write("\n")
    print(f"{len(cases)} cases, {sum(case['text'] is None for case in cases)} refused")
