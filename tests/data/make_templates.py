"""Writes templates.json: what Python's jinja2, set up as transformers sets it up for chat templates, makes of the templates and
conversations below and of the lines of template_lines.txt. An oracle that is run by hand: needs jinja2 3.1.6 (PyPI).

  make_templates.py            (SOURCE_DATE_EPOCH is 1700000000 in all of them)"""
import json, os
from datetime import datetime, timezone

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = 1700000000


class Generation(jinja2.ext.Extension):
    """{% generation %}: a body with names of its own."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_said"), [], [], body).set_lineno(line)

    def _said(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


ENV = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
ENV.filters["tojson"] = tojson
ENV.globals["raise_exception"] = raise_exception
ENV.globals["strftime_now"] = lambda f: datetime.fromtimestamp(NOW, timezone.utc).strftime(f)

U = lambda text: dict(role="user", content=text)
A = lambda text, **more: dict(role="assistant", content=text, **more)
S = lambda text: dict(role="system", content=text)
CALL = lambda name, **args: dict(type="function", id="c1", function=dict(name=name, arguments=args))
WEATHER = dict(type="function", function=dict(name="weather", description="What it is like outside,\nright now", parameters=dict(
    type="object", required=["place"], properties=dict(
        place=dict(type="string", description="a town, a village\nor whatever else has a sky above it"),
        unit=dict(type="string", enum=["celsius", "kelvin <&> é"]),
        days=dict(type="array", items=dict(type="object", properties=dict(n=dict(type="integer"), wet=dict(type="boolean"))))))))

TALKS = {
    "one turn": dict(messages=[U("Hello?")], add_generation_prompt=True),
    "system": dict(messages=[S("  Be short.\n"), U("Why?"), A("Because."), U(" And\nthen? ")], add_generation_prompt=True),
    "no prompt": dict(messages=[U("a"), A("b")]),
    "unicode": dict(messages=[S("héllo ß"), U("🤗 'quoted' \"twice\" <b>&amp;</b> \\ \t {{ x }} {% if %}")], add_generation_prompt=True),
    "tools": dict(messages=[U("Weather in Köln?"), A("", tool_calls=[CALL("weather", place="Köln", days=[1, 2.5, None, True])]),
                            dict(role="tool", content="rain"), dict(role="tool", content="{\"a\": 1}"), A("It rains.")], tools=[WEATHER]),
    "reasoning": dict(messages=[U("1+1?"), A("<think>\nold\n</think>\n\n2"), U("2+2?"), A("4", reasoning_content="easy")],
                      add_generation_prompt=True, enable_thinking=False),
    "parts": dict(messages=[U([dict(type="text", text="a"), dict(type="text", text="b")])], date_string="1 Jan 1970"),
    "image": dict(messages=[U([dict(type="image", url="x")])]),
    "strange role": dict(messages=[U("a"), dict(role="robot", content="b")]),
    "two users": dict(messages=[U("a"), U("b")]),
    "late system": dict(messages=[U("a"), S("b")]),
    "empty": dict(messages=[]),
    "nothing said": dict(messages=[U(""), A(None), U(None)]),
}

VARIABLES = {
    "l": [1, 2, 3], "s": "Hello World", "u": "héllo wörld ß ÀÉ 🤗", "m": {"b": 1, "A": [1, {"x": None}], "c": "z"}, "e": "", "n": None, "f": 1.5,
    "i": 7, "t": True, "nest": [[1, 2], [3, [4]]],
    "users": [{"n": "Bob", "a": 3, "t": {"k": 1}}, {"n": "alice", "a": 1, "t": {"k": 2}}, {"n": "Carl", "a": 2}],
    "long": "The quick brown fox jumps over the lazy-dog and runs away from extraordinarily-long-hyphenated words",
}


def made(template, variables):
    try:
        return {"text": ENV.from_string(template).render(tools=None, documents=None, **{**variables}) if "tools" not in variables
                else ENV.from_string(template).render(documents=None, **variables)}
    except jinja2.TemplateError as e:
        return {"raises": str(e)} if type(e) is jinja2.TemplateError else {"fails": f"{type(e).__name__}: {e}"}
    except Exception as e:
        return {"fails": f"{type(e).__name__}: {e}"}


cases = []
for name in sorted(os.listdir(os.path.join(HERE, "templates"))):
    text = open(os.path.join(HERE, "templates", name), encoding="utf-8").read()
    for talk, variables in TALKS.items():
        variables = {"bos_token": "<s>", **variables}
        cases.append(dict(name=f"{name}: {talk}", file=name, variables=variables, **made(text, variables)))
for i, line in enumerate(open(os.path.join(HERE, "template_lines.txt"), encoding="utf-8", newline="").read().split("\n---\n")):
    line = line.replace("\\r\\n", "\r\n")
    cases.append(dict(name=f"line {i}: {line[:50]}", template=line, **made(line, VARIABLES)))
with open(os.path.join(HERE, "templates.json"), "w", encoding="utf-8") as out:
    json.dump(dict(now=NOW, variables=VARIABLES, cases=cases), out, ensure_ascii=False, indent=0)
print(len(cases), "cases,", sum("text" in c for c in cases), "rendered")
