"""gyre serve under a small load (load.py is the large one), and 1,000 malformed requests: a tiny model on the cpu device."""
import copy, errno, http.client, json, os, random, socket, subprocess, sys, threading, time, unittest
from case import GYRE, MAKE_MODEL, Case
from load import Load, Server


class Loaded(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server(GYRE, cls.model, "--device", "cpu", "--slots", 4, "--queue", 8, "--context", 256)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0, cls.server.said
        super().tearDownClass()

    def test_load(self):
        s = self.server
        load = Load(s, 16, 200, 12)
        load.alone()
        # Rounds, as a slow machine has seen all kinds of requests, and keeps what it keeps for them, later than a fast one:
        # what leaks grows in every one of them.
        rss, seen, enough = [], (200, 503, "left", "compared"), False
        while not enough and len(rss) < 20:
            load.run(3, len(rss))
            m = s.settle(120)
            self.assertIsNotNone(m)
            self.assertEqual(m["gyre_kv_pages_held"], 0)
            rss.append(s.rss())
            enough = len(rss) > 2 and rss[-1] < rss[-2] * 1.01 + 1 and all(load.count.get(what) for what in seen)
        self.assertTrue(enough, (rss, load.count))
        self.assertEqual(load.wrong, [])
        self.assertEqual(load.differs, [])

    def test_malformed(self):
        s = self.server
        make, before, statuses = Malformed(random.Random(20)), None, {}
        for i in range(1000):
            if i == 200:
                before = s.rss()
            status = make.send(s.port)
            statuses[status] = statuses.get(status, 0) + 1
            self.assertIn(status, (None, 200, 400, 401, 404, 405, 408, 411, 413, 414, 417, 431, 501, 503, 505), make.last)
        self.assertGreater(statuses.get(400, 0), 300, statuses)
        self.assertIsNotNone(s.settle(30))
        self.assertLess(s.rss(), before * 1.03 + 2)
        self.assertEqual(s.ask("GET", "/health")[0], 200)


class Malformed:
    """Requests with something wrong, the same ones each time: values, texts and bytes."""
    BODIES = {
        "/v1/completions": dict(prompt="the cat", max_tokens=3, temperature=0.5, top_p=0.9, n=1, stop=["x"], logprobs=1, echo=False, stream=False, logit_bias={"5": 1}, seed=1),
        "/v1/chat/completions": dict(messages=[dict(role="system", content="Be brief."), dict(role="user", content=[dict(type="text", text="the cat")])], max_tokens=3, logprobs=True, top_logprobs=1,
                                     chat_template_kwargs=dict(a=1), response_format=dict(type="json_schema", json_schema=dict(name="x", schema=dict(type="object", properties=dict(a=dict(type="integer", minimum=0)), required=["a"])))),
        "/v1/chat/completions ": dict(messages=[dict(role="user", content="x"), dict(role="assistant", tool_calls=[dict(id="1", type="function", function=dict(name="add", arguments="{}"))]), dict(role="tool", content="3", tool_call_id="1")],
                                      max_tokens=3, tools=[dict(type="function", function=dict(name="add", parameters=dict(type="object", properties=dict(a=dict(type="integer")))))], tool_choice="auto", stream=True, stream_options=dict(include_usage=True)),
        "/v1/embeddings": dict(input=["the cat", "the mat"], encoding_format="float", pooling="last"),
        "/tokenize": dict(prompt="the cat", add_special_tokens=True),
        "/detokenize": dict(tokens=[1, 2, 3]),
    }
    ODD = [None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, -1e308, 2**31, 2**63 - 1, -2**63, "", "x", "\0", "\ud83d\ude00", "a" * 5000, [], {}, [[]], [{}], {"": {}}, [None], ["x"], {"a": [1]}, [0] * 300, "#/a", "^(a*)*$", "object"]

    def __init__(self, rng):
        self.rng, self.last = rng, None

    def odd(self):
        return copy.deepcopy(self.rng.choice(self.ODD))

    def places(self, value, at=()):
        yield at
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
            yield from self.places(inner, at + (key,))

    def changed(self, body):
        """The body with some of its places exchanged, left out or doubled."""
        body = json.loads(json.dumps(body))
        for _ in range(self.rng.choice([1, 1, 1, 2, 4])):
            at = self.rng.choice([p for p in self.places(body) if p] or [()])
            if not at:
                return self.odd()
            inside = body
            for key in at[:-1]:
                inside = inside[key]
            how = self.rng.random()
            if how < 0.7:
                inside[at[-1]] = self.odd()
            elif how < 0.85:
                del inside[at[-1]]
            elif isinstance(inside, dict):
                inside[self.rng.choice(["x", "n", "type", "$ref", "pattern", "format", "stream", ""])] = self.odd()
            else:
                inside.append(self.odd())
        return body

    def request(self):
        path = self.rng.choice(list(self.BODIES))
        how = self.rng.random()
        data = json.dumps(self.changed(self.BODIES[path]) if how < 0.6 else self.BODIES[path]).encode()
        if 0.6 <= how < 0.85:  # of bytes
            data = bytearray(data)
            for _ in range(self.rng.choice([1, 2, 8])):
                at = self.rng.randrange(len(data))
                op = self.rng.random()
                if op < 0.5:
                    data[at] = self.rng.randrange(256)
                elif op < 0.75:
                    del data[at:at + self.rng.choice([1, 5, 50])]
                else:
                    data[at:at] = self.rng.choice([b"{", b"[" * 3000, b'"', b"\\ud800", b"\xff\xfe", b"1e999", b",,", b"null"])
                data = data or bytearray(b"x")
        head = [f"POST {path.strip()} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", "Connection: close"]
        self.cut = how >= 0.85
        if self.cut:  # of the head
            line = self.rng.randrange(len(head))
            head[line] = self.rng.choice(["", "x", ": y", "Content-Length: -1", "Content-Length: 5x", f"Content-Length: {10**30}", "Transfer-Encoding: chunked", "Expect: 200-ok", "GET /health HTTP/1.1", "BREW /tokenize HTTP/1.1",
                                          "POST /%00%ff HTTP/1.1", "POST " + "/a" * 40000 + " HTTP/1.1", "X: " + "y" * 90000, "POST /v1/completions HTTP/7.3", "\0\0", "Authorization: Bearer \xff", "POST * HTTP/1.1", "OPTIONS * HTTP/1.1"])
        return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + bytes(data)

    def send(self, port):
        """The status of the answer; None where the connection was closed without one."""
        self.last = self.request()
        with socket.create_connection(("127.0.0.1", port), 60) as c:
            got = b""
            try:
                c.sendall(self.last)
                if self.cut or self.rng.random() < 0.1:  # it would wait for the rest
                    c.shutdown(socket.SHUT_WR)
                while b"\r\n" not in got and (more := c.recv(4096)):
                    got += more
                while c.recv(65536):
                    pass
            except OSError as e:  # the server closed first: a reset here, not connected at shutdown
                if not isinstance(e, ConnectionError) and e.errno != errno.ENOTCONN:
                    raise
        return int(got[9:12]) if got.startswith(b"HTTP/1.") else None


class Together(Case):
    """Requests of all kinds, beside others and clients that leave, get what each gets alone: where the context shifts, windows
    let go of pages, keys and values have few bits, and beginnings are shared."""

    def requests(self, rng, n):
        beginnings = [[rng.randrange(10, 120) for _ in range(63)] for _ in range(3)]
        for _ in range(n):
            prompt = rng.choice(beginnings)[:rng.choice([1, 5, 31, 32, 33, 40, 62, 63])]
            body = dict(prompt=prompt, max_tokens=rng.choice([1, 2, 8, 30, 70, 100]), seed=rng.randrange(5), temperature=rng.choice([0, 0, 0.7, 1, 1.3]))
            body |= rng.choice([{}, {}, dict(top_p=0.9), dict(top_k=5), dict(min_p=0.05), dict(repetition_penalty=1.3), dict(presence_penalty=0.5, frequency_penalty=0.3)])
            for chance, more in ((0.7, dict(logit_bias={"0": -100, "1": -100, "2": -100})), (0.25, dict(n=2)), (0.25, dict(logprobs=2)), (0.2, dict(echo=True)), (0.2, dict(n_keep=rng.choice([0, 8, 32, -1]))), (0.1, dict(stop=["a"]))):
                body |= more if rng.random() < chance else {}
            yield body

    def ask(self, s, body):
        status, data, _ = s.ask("POST", "/v1/completions", body)
        self.assertIn(status, (200, 400), data[:300])
        if status == 400:
            return 400
        if body.get("stream"):
            texts, events = {}, [x[6:] for x in data.decode().split("\n\n") if x.startswith("data: ")]
            self.assertEqual(events[-1], "[DONE]")
            for chunk in map(json.loads, events[:-1]):
                for c in chunk["choices"]:
                    texts[c["index"]] = texts.get(c["index"], "") + c["text"]
            return [texts[i] for i in sorted(texts)]
        answer = json.loads(data)
        return [[c["text"], c["finish_reason"], c["logprobs"]] for c in sorted(answer["choices"], key=lambda c: c["index"])]

    def same(self, a, b):
        if isinstance(a, float) and isinstance(b, float):
            return abs(a - b) < 1e-3
        if isinstance(a, list) and isinstance(b, list):
            return len(a) == len(b) and all(map(self.same, a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(self.same(a[k], b[k]) for k in a)
        return a == b

    def compare(self, family, *args):
        model, rng, lock = self.at(family + ".gguf"), random.Random(family), threading.Lock()
        subprocess.run([MAKE_MODEL, model, "F32", family], check=True)
        s = Server(GYRE, model, "--device", "cpu", "--context", 64, "--slots", 4, "--queue", 99, *args)
        all = list(self.requests(rng, 24))
        alone = [self.ask(s, body) for body in all]
        wrong, todo = [], [(i, rng.random()) for i in range(len(all))] * 2
        rng.shuffle(todo)
        def client():
            while True:
                with lock:
                    if not todo or wrong:
                        return
                    i, how = todo.pop()
                try:
                    if how < 0.4:  # one that leaves, with another request
                        c = s.connect()
                        c.request("POST", "/v1/completions", json.dumps(all[(i + 7) % len(all)] | dict(stream=how < 0.2)))
                        time.sleep(how / 10)
                        c.close()
                    stream = how > 0.3
                    got, want = self.ask(s, all[i] | dict(stream=stream)), alone[i]
                    if stream and want != 400:
                        want = [c[0] for c in want]
                    if not self.same(got, want):
                        wrong.append((all[i], got, want))
                except Exception as e:  # a thread's own would be lost
                    wrong.append((all[i], repr(e)))
        threads = [threading.Thread(target=client) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        m = s.settle(60)
        self.assertEqual(s.stop(), 0, s.said)
        self.assertEqual(wrong, [])
        self.assertEqual(m["gyre_kv_pages_held"], 0)

    def test_together_as_alone(self):
        self.compare("llama", "--context-shift", "--kv", "8/4")

    def test_windows_together_as_alone(self):
        self.compare("mistral-window", "--context-shift", "--kv", "4")

    def test_refused_together_as_alone(self):
        self.compare("qwen2")


class Ends(Case):
    def test_sigterm_during_answers(self):
        s = Server(GYRE, self.model, "--device", "cpu", "--slots", 8, "--context", 4096)
        ends = []
        def ask():
            c = s.connect(60)
            c.request("POST", "/v1/completions", json.dumps(dict(prompt="the cat", max_tokens=4000, n=128, temperature=0, stream=True, logit_bias={"0": -100, "1": -100, "2": -100})), {})
            r = c.getresponse()
            try:
                ends.append(r.read().decode()[-200:])
            except http.client.HTTPException as e:
                ends.append(repr(e))
            finally:
                r.close()
                c.close()
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for t in threads:
            t.start()
        while s.metrics()["gyre_requests_total"] < 8:
            time.sleep(0.01)
        start = time.time()
        self.assertEqual(s.stop(), 0, s.said)
        self.assertLessEqual(time.time() - start, 30)  # 2 by the product's own limit
        for t in threads:
            t.join()
        for said in ends:
            self.assertRegex(said, r"shutting down.*\n\ndata: \[DONE\]\n\n$")

    def test_clients_that_do_not_read(self):
        # An answer that nobody takes, larger than what both ends keep of it, holds its thread for 30 seconds and no longer.
        s = Server(GYRE, self.model, "--device", "cpu", "--slots", 1, "--context", 256)
        threads = lambda: len(os.listdir(f"/proc/{s.p.pid}/task"))
        at_rest, body = threads(), b'{"tokens": [' + b"200," * 3000000 + b"200]}"
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        c.settimeout(60)
        c.connect(("127.0.0.1", s.port))
        c.sendall(b"POST /detokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertTrue(c.recv(12).endswith(b"200"))
        self.assertEqual(threads(), at_rest + 1)
        start = time.time()
        while threads() > at_rest and time.time() - start < 60:
            time.sleep(0.2)
        self.assertEqual(threads(), at_rest)
        c.close()
        self.assertEqual(s.stop(), 0)

    def test_slow_clients(self):
        # The limits are seconds of the product; this asks that a client that dribbles is dropped by them.
        s = Server(GYRE, self.model, "--device", "cpu", "--slots", 1, "--context", 256, "--timeout", 2)
        start, gone = time.time(), set()
        slow = [socket.create_connection(("127.0.0.1", s.port), 30) for _ in range(20)]
        for c in slow:
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")
        while len(gone) < len(slow) and time.time() - start < 60:
            for c in slow:
                try:
                    c.sendall(b" ")
                    c.setblocking(False)
                    if c.recv(100) == b"":
                        gone.add(c)
                except BlockingIOError:
                    pass
                except ConnectionError:
                    gone.add(c)
                finally:
                    c.setblocking(True)
            time.sleep(0.2)
        self.assertEqual(len(gone), len(slow))
        self.assertGreater(time.time() - start, 1.5)
        self.assertEqual(s.post("/v1/completions", prompt="the cat", max_tokens=1)["usage"]["completion_tokens"], 1)
        for c in slow:
            c.close()
        self.assertEqual(s.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], verbosity=1)
