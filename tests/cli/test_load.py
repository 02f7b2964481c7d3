"""gyre serve under a small load (load.py is the large one), and 1,000 malformed requests: a tiny model on the cpu device."""
import copy, errno, http.client, json, random, socket, sys, threading, time, unittest
from case import GYRE, Case
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
