"""The page of gyre serve: that it loads nothing and says so, and, where a Chromium is installed, a conversation on a tiny
model: writing, streaming, stopping, again, kept over a reload; what a model writes is never markup."""
import base64, hashlib, html.parser, json, re, unittest
from case import Case
from browser import PROGRAM, Browser
from test_serve import Server

# What a model may write, and the page's nodes for it ("tag(children)" or text).
MARKDOWN = [
    ("plain & <b>text</b>", ["p(plain & <b>text</b>)"]),
    ("# One *two*\n\nthree\nfour", ["h3(One em(two))", "p(three\nfour)"]),
    ("**a** __b__ ~~c~~ `d <e>` \\*f\\*", ["p(strong(a) strong(b) del(c) code(d <e>) *f*)"]),
    ("snake_case_name 2*3*4 5 * 6 * 7", ["p(snake_case_name 2*3*4 5 * 6 * 7)"]),
    ("[x](https://a.b/c) [y](javascript:alert(1)) [z](data:text/html,x)", ["p(a[https://a.b/c](x) [y](javascript:alert(1)) [z](data:text/html,x))"]),
    ("see https://a.b/c_d_e?f=1, ok", ["p(see a[https://a.b/c_d_e?f=1](https://a.b/c_d_e?f=1), ok)"]),
    ("- a\n- b\n  - c\n- d", ["ul(li(a)li(bul(li(c)))li(d))"]),
    ("2. a\n3. b", ["ol(li(a)li(b))"]),
    ("1. a\n\n   b\n2. c", ["ol(li(p(a)p(b))li(p(c)))"]),
    ("> a\n> b\n\nc", ["blockquote(p(a\nb))", "p(c)"]),
    ("```js\n<script>x</script>\n```", ["div(div(span(js)button(Copy))pre(code(<script>x</script>)))"]),
    ("```\nunfinished **x", ["div(div(span(text)button(Copy))pre(code(unfinished **x)))"]),
    ("| a | b |\n|---|:-:|\n| `c` | d |", ["div(table(thead(tr(th(a)th(b)))tbody(tr(td(code(c))td(d)))))"]),
    ("a\n\n---\n\nb  \nc", ["p(a)", "hr()", "p(bbr()c)"]),
    ("<img src=x onerror=alert(1)>\n<a href='javascript:1'>x</a>", ["p(<img src=x onerror=alert(1)>\n<a href='javascript:1'>x</a>)"]),
    *((x * 4000, None) for x in ("*", "[", "`", "**a ", "_a ", "[a](", "~~a", "- ", "> ", "> - ", "| a ", "1. ", "http://", "`a ", "<", "\n\n", "a|\n|-|\n")),  # only how long they take
]
SHOWN = "const shown = (n) => n.nodeType === 3 ? n.data : n.tagName.toLowerCase() + (n.href ? '[' + n.getAttribute('href') + ']' : '') + '(' + [...n.childNodes].map(shown).join('') + ')';"


class Controls(html.parser.HTMLParser):
    """Fields and buttons, and the text inside of buttons and labels."""
    def __init__(self, page):
        super().__init__()
        self.open, self.nameless, self.labels, self.fields = [], [], set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag == "label":
            self.labels.add(a.get("for"))
        if tag in ("button", "label"):
            self.open.append([tag, a, ""])
        if tag in ("input", "select", "textarea"):
            self.fields.append((a, any(x[0] == "label" for x in self.open)))

    def handle_data(self, data):
        for x in self.open:
            x[2] += data.strip()

    def handle_endtag(self, tag):
        if tag in ("button", "label") and self.open:
            _, a, text = self.open.pop()
            if tag == "button" and not a.get("aria-label") and not re.search(r"\w", text):
                self.nameless.append(a)


class Page(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server(cls.model, "--alias", "tiny", "--slots", 2, "--context", 512).__enter__()
        _, cls.page, cls.headers = cls.server.ask("GET", "/")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)
        super().tearDownClass()

    def test_loads_nothing(self):
        away = re.findall(r"""(?:src|href|action|poster)\s*=\s*["']?\s*((?:https?:)?//[^"'\s>]+)|(?:url\(|@import|import\()""", self.page)
        self.assertEqual(away, [])
        self.assertNotRegex(self.page, r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\son\w+=\"|style=\"")

    def test_policy(self):
        policy = self.headers["Content-Security-Policy"]
        for tag in ("script", "style"):
            inside = re.search(f"<{tag}>(.*?)</{tag}>", self.page, re.S)[1]
            self.assertIn(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'", policy)
        self.assertIn("default-src 'none'", policy)
        self.assertNotIn("unsafe", policy)
        self.assertEqual(self.page.count("<script"), 1)

    def test_names(self):
        c = Controls(self.page)
        self.assertEqual(c.nameless, [])
        self.assertEqual([a for a, inside in c.fields if not inside and a.get("id") not in c.labels], [])
        self.assertRegex(self.page, r'<html lang="en">')

    @unittest.skipUnless(PROGRAM, "no Chromium here")
    def test_conversation(self):
        b = Browser()
        try:
            self.assertTrue(b.open(f"http://127.0.0.1:{self.server.port}/"))
            self.assertTrue(b.wait("$('model').textContent === 'tiny' && limit === 512"))
            b.js("settings.max_tokens = 60; settings.temperature = 1; $('text').focus()")
            b.write("hello there")
            b.key("Enter", 13, "\r")
            self.assertTrue(b.wait("talk() && talk().turns.length === 2 && !running"))
            turn = b.js("talk().turns[1]")
            self.assertFalse(turn.get("error"))
            self.assertGreater(b.js("talk().used"), 2)
            self.assertIn("tokens", b.js("document.querySelector('.figures').textContent"))
            b.js("settings.max_tokens = 400; regenerate()")
            b.key("Escape", 27)
            self.assertTrue(b.wait("!running", 10))
            self.assertTrue(b.js("talk().turns[1].stopped || !!talk().turns[1].why"))  # the tiny model may have been quicker
            kept = b.js("talk().turns[1].text")
            self.assertTrue(b.open(f"http://127.0.0.1:{self.server.port}/"))
            self.assertTrue(b.wait("typeof talks !== 'undefined' && talks.length === 1"))
            self.assertEqual(b.js("talk().turns[1].text"), kept)
            self.assertEqual(b.js("document.querySelectorAll('#list li').length"), 1)
            b.js("newTalk()")
            self.assertEqual(b.js("document.querySelectorAll('.turn').length"), 0)
            b.js("open(talks[0].id); settings.top_p = 7; regenerate()")  # what the server refuses is told
            self.assertTrue(b.wait("!running && !!document.querySelector('.error')"))
            self.assertIn("top_p", b.js("document.querySelector('.error').textContent"))
            for name in ("light", "dark", "system"):
                b.js("$('theme').click()")
                self.assertIn(name, b.js("$('theme').getAttribute('aria-label')"))
            b.command("Emulation.setDeviceMetricsOverride", width=360, height=640, deviceScaleFactor=2, mobile=True)
            self.assertEqual(b.js("document.documentElement.scrollWidth"), 360)
            self.assertTrue(b.js("$('open-side').click(), $('side').classList.contains('open') && document.activeElement === $('close-side')"))
            b.key("Escape", 27)
            self.assertFalse(b.js("$('side').classList.contains('open')"))
            wrong = [x for x in b.complaints() if "400" not in x]
            self.assertEqual(wrong, [])
        finally:
            b.close()

    @unittest.skipUnless(PROGRAM, "no Chromium here")
    def test_markdown(self):
        b = Browser()
        try:
            b.open(f"http://127.0.0.1:{self.server.port}/")
            self.assertTrue(b.wait("typeof markdown === 'function'"))
            for text, due in MARKDOWN:
                if due is None:
                    self.assertLess(b.js(f"(() => {{ const t = performance.now(); markdown({json.dumps(text)}); return performance.now() - t; }})()"), 4000, text[:9])
                else:
                    self.assertEqual(b.js(f"(() => {{ {SHOWN} return markdown({json.dumps(text)}).map(shown); }})()"), due, text)
            self.assertEqual(b.js("document.querySelectorAll('script').length"), 1)
            self.assertEqual(b.complaints(), [])
        finally:
            b.close()


if __name__ == "__main__":
    unittest.main(argv=["test_page"])
