"""gyre template, gyre chat and gyre run --chat: through pipes and on a terminal of our own. Standard library only.

  test_chat.py GYRE MAKE_MODEL [unittest arguments]"""
import fcntl, json, os, pty, re, select, signal, subprocess, sys, time, unittest

from case import GYRE, Case

TALK = {"messages": [{"role": "user", "content": "the <|im_end|> cat"}], "add_generation_prompt": True}


class Terminal:
    """The program on a pseudo terminal; `seen` is what it showed, without what moves the cursor."""

    def __init__(self, *args, stdout=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if stdout is not None:
                os.dup2(stdout, 1)
            os.environ.update(TERM="xterm", LC_ALL="C.UTF-8")
            os.execv(GYRE, [GYRE, *map(str, args)])
        self.data = b""

    @property
    def seen(self):
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-B0-9]|\x1b[=>]|\x07|\r", "", self.data.decode("utf-8", "replace"))

    def until(self, pattern, timeout=60):
        end = time.time() + timeout
        while time.time() < end:
            if re.search(pattern, self.seen, re.S):
                return True
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.data += os.read(self.fd, 65536)
                except OSError:
                    break
        return bool(re.search(pattern, self.seen, re.S))

    def type(self, text):
        self.data = b""
        os.write(self.fd, text.encode())

    def end(self, timeout=60):
        end = time.time() + timeout
        while time.time() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            self.until("$^", 0.1)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return None


class Chat(Case):
    def template(self, text, talk=TALK, *more, **env):
        return self.done("template", self.put("t.jinja", text.encode()), "--json-file", self.put("talk.json", json.dumps(talk).encode()), *more)[0]

    def test_template(self):
        self.assertEqual(self.template("{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}\n"), "[user]the <|im_end|> cat")
        self.assertEqual(self.template("{{ tools is none }}{{ documents is none }}{{ nope is defined }}"), "TrueTrueFalse")
        t, talk = self.put("t.jinja", b"{{ raise_exception('no: ' ~ messages[0].role) }}"), self.put("talk.json", json.dumps(TALK).encode())
        self.fails(1, "template", t, "--json-file", talk, word="no: user")
        self.fails(1, "template", self.put("bad.jinja", b"a\n{{ x"), "--json-file", talk, word="line 2, column 4")
        self.fails(1, "template", t, "--json-file", self.put("list.json", b"[1]"), word="list.json): it is no JSON object; ")
        self.fails(1, "template", t, "--json-file", self.put("cut.json", b'\n{"a": '), word="cut.json, line 2, column 6): ")
        self.fails(1, "template", t, "--json-file", self.put("none.json", b""), word="none.json, line 1, column 0): ")
        deep = self.put("deep.json", b'{"x": ' + b"[" * 401 + b"]" * 401 + b"}")
        self.fails(1, "template", t, "--json-file", deep, word="its variables): it exceeds the limit of 400")
        wide = lambda n: ("template", self.put("wide.jinja", b"{{ x }} {{ x[0] + 1 }} {{ x | tojson }}"), "--json-file", self.put("wide.json", f'{{"x": [{n}, "{n}"]}}'.encode()))
        for n in (2**63 - 1, 2**63, -2**63 - 1, 2**64, 10**30 + 7, -10**38):
            self.assertEqual(self.done(*wide(n))[0], f'[{n}, \'{n}\'] {n + 1} [{n}, "{n}"]')
        self.fails(1, *wide(10**39), word=f"an integer beyond 128 bits: {10**39}")
        self.fails(1, "template", t, "--json-file", self.put("nul.json", b'{"x": {"a\\u0000b": 1}}'), word="nul.json, line 1, column 17): NUL byte in object key")
        costly = b"{% set s = ' ' * 7000000 ~ '[18446744073709551616]' %}{% for i in range(9) %}{% set x = s | from_json %}{% endfor %}"
        self.fails(1, "template", self.put("costly.jinja", costly), "--json-file", talk, word="60 million steps")  # a sanitizer sees what that leaves
        self.fails(2, "template", t, word="--json-file")
        self.fails(1, "template", t, "--json-file", talk, "--chat-template", "chatml", word="no model")

    def test_template_of_a_model(self):
        made = self.json("template", self.model, "--json-file", self.put("talk.json", json.dumps(TALK).encode()))
        self.assertEqual("".join(x["text"] for x in made["spans"]), "<|im_start|>user\nthe <|im_end|> cat<|im_end|>\n<|im_start|>assistant\n")
        self.assertEqual([x["text"] for x in made["spans"] if x["plain"]], ["the <|im_end|> cat"])
        self.assertEqual([x for x in made["tokens"] if x < 3], [1, 2, 1])  # the template's own control tokens, and no other
        self.assertEqual(made["template"], "built in: chatml")
        self.fails(1, "template", self.model, "--json-file", self.at("talk.json"), "--chat-template", "nosuch", word="chatml")

    def test_strftime(self):
        path, talk = self.put("t.jinja", b"{{ strftime_now('%Y-%m-%d') }}"), self.put("talk.json", b"{}")
        p = subprocess.run([GYRE, "template", path, "--json-file", talk], capture_output=True, env={**os.environ, "SOURCE_DATE_EPOCH": "86400", "TZ": "Asia/Tokyo"})
        self.assertEqual(p.stdout, b"1970-01-02")
        for odd in ("0", "99999999999999999999", "-1", "", "1 ", "soon"):  # 0 is the clock to the library
            self.fails(1, "template", path, "--json-file", talk, env={"SOURCE_DATE_EPOCH": odd}, word=f"SOURCE_DATE_EPOCH={odd})")

    def piped(self, text, *options):
        text = text if isinstance(text, bytes) else text.encode()
        p = subprocess.run([GYRE, "chat", self.model, "--device", "cpu", "-n", "6", *options], input=text, capture_output=True, timeout=120)
        return p.returncode, p.stdout.decode(), p.stderr.decode()

    def test_any_bytes_through_a_pipe(self):
        for said in (b"the\0cat", b"\0", b"the cat\0"):  # as run has them
            status, out, err = self.piped(said + b"\n", "--stop", "\n")
            once = self.done("run", self.model, "--device", "cpu", "-f", self.put("nul.txt", said), "--chat", "-n", 6, "--stop", "\n")[0]
            self.assertEqual((status, out), (0, once), err)
        self.assertNotEqual(self.piped("the\0cat\n", "--stop", "\n")[1], self.piped("the\n", "--stop", "\n")[1])
        status, out, err = self.piped(b"the cat\nthe \xff\n", "--stop", "\n")
        self.assertEqual((status, out.count("\n")), (1, 1))
        self.assertIn("gyre: cannot answer (standard input, line 2): it is no UTF-8; convert it", err)

    def test_pipes(self):
        status, out, err = self.piped("the cat\nthe moon\n", "--stop", "\n")
        self.assertEqual(status, 0, err)
        self.assertEqual(out.count("\n"), 2)
        self.assertNotIn("> ", out)
        again = self.piped("the cat", "--stop", "\n")  # a last line without an end
        self.assertEqual(again[:2], (0, out.split("\n")[0] + "\n"))
        self.assertEqual(self.piped("")[:2], (0, ""))
        self.assertNotEqual(self.piped("the cat\n", "--system", "be a dog", "--stop", "\n")[1], again[1])
        once = self.done("run", self.model, "--device", "cpu", "-p", "the cat", "--chat", "-n", 6, "--stop", "\n")[0]
        self.assertEqual(once, again[1])

    def test_answer_with_a_nul_is_remembered_whole(self):
        how = ("--temp", "2", "-n", "4")
        for seed in (289, *range(289)):  # whose answer has one, and whole characters
            once = self.json("run", self.model, "--device", "cpu", "-p", "the cat", "--chat", *how, "--seed", seed)["text"]
            if "\0" in once[:-1] and "\n" not in once and "\ufffd" not in once:
                break
        talk = {"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": once}, {"role": "user", "content": "the moon"}],
                "add_generation_prompt": True}
        want = subprocess.run([GYRE, "template", self.model, "--json-file", self.put("nul.json", json.dumps(talk).encode())], capture_output=True).stdout
        self.assertIn(b"\0", want)
        want = self.json("run", self.model, "--device", "cpu", "-f", self.put("nul.txt", want), *how, "--no-bos", "--seed", seed)["text"]
        status, out, err = self.piped("the cat\nthe moon\n", *how, "--seed", str(seed))
        self.assertEqual((status, out), (0, once + "\n" + want + "\n"), err)

    def test_stop_text_is_not_remembered(self):
        first = self.piped("the cat\n")[1].rstrip("\n")
        stop = first[len(first) // 2]
        status, out, err = self.piped("the cat\nthe moon\n", "--stop", stop)
        self.assertEqual((status, out.count("\n")), (0, 2), err)
        said, second = out.splitlines()
        self.assertEqual(said, first[:first.index(stop)])
        talk = {"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": said},
                             {"role": "user", "content": "the moon"}], "add_generation_prompt": True}
        prompt = self.done("template", self.model, "--json-file", self.put("stopped.json", json.dumps(talk).encode()))[0]
        want = self.json("run", self.model, "--device", "cpu", "-p", prompt, "-n", 6, "--no-bos", "--stop", stop)
        self.assertEqual(second, want["text"].rstrip("\n"))

    def test_template_ends_an_answer(self):
        for end in "ehtaosn .,;c":  # one that this model says
            words = self.put("ends.jinja", b"{% for m in messages %}{{ m.content }}" + end.encode() + b"{% endfor %}")
            status, out, err = self.piped("the cat\n", "--chat-template", words, "-n", "24")
            once = self.json("run", self.model, "--device", "cpu", "-p", "the cat", "--chat", "--chat-template", words, "-n", 24)
            self.assertEqual((status, once["text"].rstrip("\n") + "\n"), (0, out), err)
            self.assertNotIn(end, once["text"])
            if once["generated_tokens"] < 24:
                self.assertEqual(once["stop"], "end of text")
                return
        self.fail("no answer ends")

    def test_pipes_fail(self):
        status, out, err = self.piped("hi\nho\n", "--chat-template", self.put("never.jinja", b"{{ raise_exception('never') }}"))
        self.assertEqual((status, out), (1, ""))
        self.assertIn("never", err.strip().splitlines()[-1])
        status, out, err = self.piped("the cat sat on the mat\n", "--ctx", "16")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("the context 16", err)
        self.fails(2, "chat", self.model, "--wings")
        self.fails(1, "chat", self.at("none.gguf"))

    def test_context_shift(self):
        status, out, err = self.piped("the cat\n" * 8, "--ctx", "64", "--context-shift", "--stop", "\n")
        self.assertEqual((status, out.count("\n")), (0, 8), err)
        self.assertEqual(self.piped("the cat\n" * 8, "--ctx", "64", "--stop", "\n")[0], 1)
        for shift, cut in ((["--context-shift"], False), ([], True)):  # in the middle of an answer
            status, out, err = self.piped("the cat\n", "--ctx", "64", "-n", "200", "--temp", "1", "--seed", "4", *shift)
            self.assertEqual((status, "the context is full" in err), (0, cut), err)
            self.assertEqual(len(out) > 200, not cut)

    def test_run(self):
        prompt = self.put("prompt.txt", b"the cat")
        want = self.json("run", self.model, "--device", "cpu", "-p", "the cat", "-n", 8)
        self.assertEqual(self.json("run", self.model, "--device", "cpu", "-f", prompt, "-n", 8)["tokens"], want["tokens"])
        chat = self.json("run", self.model, "--device", "cpu", "-f", prompt, "-n", 8, "--chat")
        self.assertGreater(chat["prompt_tokens"], want["prompt_tokens"] + 10)
        self.fails(2, "run", self.model, "-f", prompt, "-p", "a", word="-f")
        self.fails(2, "run", self.model, "-p", "a", "--system", "b", word="--chat")
        self.fails(1, "run", self.model, "--device", "cpu", "-f", self.at("none.txt"), word="none.txt")
        self.fails(1, "run", self.model, "--device", "cpu", "-f", self.put("latin", b"caf\xe9"), "--chat", word="UTF-8")

    def test_terminal(self):
        saved = self.at("saved.json")
        t = Terminal("chat", self.model, "--device", "cpu", "-n", 6, "--stop", "\n")
        self.assertTrue(t.until("> $"), t.seen)
        for line, wanted in (("/help", "/exit"), ("/dance", "unknown command"), ("/load /nowhere/x", "cannot"), ("/save /nowhere/x", "cannot"),
                             ("/params temp 9", r"temp +9"), ("/params temp hot", "cannot set"), ("/params temp 0", r"temp +0"),
                             ("/params repeat-penalty", r"repeat-penalty +1\b"), ("/params", r"penalty-window +64\b"), ("/regen", "no answer yet")):
            t.type(line + "\r")
            self.assertTrue(t.until(wanted + r".*> $"), (line, t.seen))
        t.type("the cat\r")
        self.assertTrue(t.until(r"\d+/512 [\d.]+ tok/s > $"), t.seen)
        for line, wanted in ((f"/save {saved}", "saved"), ("/reset", "forgotten\n"), (f"/load {saved}", "2 messages\n"), ("/regen", "tok/s "), (f"/save {saved}", "saved")):
            t.type(line + "\r")
            # What the prompt tells of the last answer is told of no other talk.
            self.assertTrue(t.until(wanted + ("> $" if wanted.endswith("\n") else ".*> $")), (line, t.seen))
        messages = json.loads(self.read(saved))["messages"]
        self.assertEqual([(m["role"], m["content"][:7]) for m in messages][0], ("user", "the cat"))
        self.assertEqual([m["role"] for m in messages], ["user", "assistant"])
        t.type("\x03")
        self.assertTrue(t.until("> $"), t.seen)
        t.type("/system a dog\r")
        self.assertTrue(t.until(r"new talk[^\n]*\n> $"), t.seen)
        t.type("one\\\rtwo\r")
        self.assertTrue(t.until("tok/s > $"), t.seen)
        t.type(f"/save {saved}\r")
        self.assertTrue(t.until("saved.*> $"), t.seen)
        messages = json.loads(self.read(saved))["messages"]
        self.assertEqual([m["content"] for m in messages][:2], ["a dog", "one\ntwo"])
        t.type("/exit\r")
        self.assertEqual(t.end(), 0)

    def test_load_leaves_no_trace(self):
        talk = self.put("talk.json", json.dumps({"messages": [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]}).encode())
        seen = []
        for before in ([], ["another thing", "/system a dog", "the mat"]):
            t = Terminal("chat", self.model, "--device", "cpu", "-n", 6, "--stop", "\n")
            self.assertTrue(t.until("> $"), t.seen)
            for line in [*before, f"/load {talk}", "the moon"]:
                t.type(line + "\r")
                wanted = "2 messages\n> $" if line.startswith("/load") else "> $" if line[0] == "/" else r"\d+/512 [\d.]+ tok/s > $"
                self.assertTrue(t.until(r"\n.*" + wanted), (line, t.seen))
            seen.append(re.sub(r" [\d.]+ tok/s > $", "", t.seen[t.seen.index("\n"):]))
            os.write(t.fd, b"\x04")
            self.assertEqual(t.end(), 0)
        self.assertEqual(*seen)

    def test_ctrl_d_at_once(self):
        for _ in range(12):  # the prompt is there: a key is a key, not the end of a line that the terminal would edit
            t = Terminal("chat", self.model, "--device", "cpu", "-n", 2)
            self.assertTrue(t.until("> "), t.seen)
            os.write(t.fd, b"\x04")
            self.assertEqual(t.end(20), 0)

    def test_load_refuses(self):
        t = Terminal("chat", self.model, "--device", "cpu", "-n", 2)
        self.assertTrue(t.until("> $"), t.seen)
        for bad, why in (({}, "no object with a list"), ({"messages": [{}]}, "no role"), ({"messages": [{"role": "user"}]}, "no text"),
                         ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url")):
            t.type(f"/load {self.put('bad.json', json.dumps(bad).encode())}\r")
            self.assertTrue(t.until(why + ".*> $"), (bad, t.seen))
        os.write(t.fd, b"\x04")
        self.assertEqual(t.end(), 0)

    def test_interrupted_answer(self):
        t = Terminal("chat", self.model, "--device", "cpu", "-n", 400)
        self.assertTrue(t.until("> $"), t.seen)
        t.type("the moon\r")
        self.assertTrue(t.until("the moon\n."), t.seen)
        os.write(t.fd, b"\x03")
        self.assertTrue(t.until("tok/s > $", 30), t.seen)
        os.kill(t.pid, signal.SIGTERM)
        self.assertEqual(t.end(), 130)

    @unittest.skipUnless(hasattr(fcntl, "F_SETPIPE_SZ"), "a pipe's size is not known")
    def test_interrupted_where_nobody_reads(self):
        r, w = os.pipe()
        os.write(w, b"x" * fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096))
        t = Terminal("chat", self.model, "--device", "cpu", "-n", 400, stdout=w)
        self.assertTrue(t.until("> $"), t.seen)  # the prompt is on the terminal, the answers are in the pipe
        for _ in range(2):
            t.type("the moon\r")
            self.assertTrue(t.until("the moon\n"), t.seen)
            time.sleep(0.5)  # it answers, or will: no word of it has room
            os.write(t.fd, b"\x03")
            self.assertTrue(t.until("> $", 30), t.seen)
        t.type("/help\r")
        self.assertTrue(t.until("/exit.*> $"), t.seen)
        os.read(r, 4096)
        t.type("the cat\r")
        said = b""
        while not said.strip():  # what it says is printed again
            self.assertTrue(select.select([r], [], [], 60)[0])
            said = os.read(r, 4096)
        os.set_blocking(r, False)
        os.write(t.fd, b"\x03")
        self.assertTrue(t.until("> $", 30), t.seen)
        t.type("/exit\r")
        self.assertEqual(t.end(), 0)
        os.close(r)
        os.close(w)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
