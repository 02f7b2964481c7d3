#!/usr/bin/env python3
"""gyre serve under load, over loopback: many clients with prompts of all lengths and mixed sampling, of whom one in five goes away.

  load.py GYRE MODEL [--device D] [--clients 32] [--seconds 60] [--slots 8] [--context 2048] [--seed 1] [--serve-args "..."]

What must hold: no status but 200 and 503; answers of temperature 0 are those that the same prompt gets alone, as far as every
choice is clear (the two best logits at least 0.1 apart); when all have gone nothing runs, no page of the cache is held and the
server's memory is what it was before; several clients get more tokens a second than one; a short request that comes while a
long prompt is read has its first token within two chunks. One line each; exit status 1 where one fell short. Standard library.
"""
import argparse, http.client, json, os, random, re, shlex, socket, subprocess, sys, threading, time

CLEAR = 0.1
HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "n"]}


class Server:
    def __init__(self, gyre, model, *args):
        self.p = subprocess.Popen([gyre, "serve", model, "--port", "0", *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.port, lines = 0, []
        for line in self.p.stderr:
            lines.append(line)
            if m := re.match(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(m[1])
                break
        if not self.port:
            self.p.wait()
            raise AssertionError("gyre serve did not start: " + "".join(lines))
        self.said = []
        self.reader = threading.Thread(target=lambda: self.said.extend(self.p.stderr), daemon=True)
        self.reader.start()

    def connect(self, timeout=600):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None):
        c = self.connect()
        try:
            c.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            r = c.getresponse()
            return r.status, r.read(), r.headers
        finally:
            c.close()

    def post(self, path, **body):
        status, data, _ = self.ask("POST", path, body)
        if status != 200:
            raise AssertionError((status, data[:300]))
        return json.loads(data)

    def metrics(self):
        return {k: float(v) for k, v in re.findall(r"^(gyre_\w+) (\S+)$", self.ask("GET", "/metrics")[1].decode(), re.M)}

    def rss(self):
        with open(f"/proc/{self.p.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) / 1024

    def settle(self, seconds):
        """Until nothing runs: the counts then, or None."""
        end = time.time() + seconds
        while time.time() < end:
            m = self.metrics()
            if m["gyre_requests_running"] == 0 == m["gyre_requests_waiting"]:
                return m
            time.sleep(0.1)
        return None

    def stop(self):
        self.p.terminate()
        try:
            return self.p.wait(60)
        except subprocess.TimeoutExpired:
            self.p.kill()
            return None
        finally:
            self.p.wait()
            self.reader.join()
            self.p.stderr.close()


class Load:
    def __init__(self, server, clients, longest, answer=24, seed=1):
        self.s, self.clients, self.longest, self.answer, self.seed = server, clients, longest, answer, seed
        text = ""
        for name in ("architecture.md", "serve.md", "tour.md"):
            with open(os.path.join(HERE, "..", "..", "docs", name), encoding="utf-8") as f:
                text += f.read()
        self.tokens = server.post("/tokenize", prompt=text, add_special_tokens=False)["tokens"]
        self.lock, self.count, self.wrong, self.differs = threading.Lock(), {}, [], []
        rng = random.Random(seed)
        lengths = [10, longest] + [int(10 * (longest / 10) ** rng.random()) for _ in range(14)]
        self.prompts = [self.cut(rng, n) for n in lengths]
        self.solo = None

    def cut(self, rng, n):
        at = rng.randrange(len(self.tokens) - n)
        return self.tokens[at:at + n]

    def alone(self):
        """What each prompt gets when nothing else runs, and as far as it is clear."""
        self.solo = []
        for p in self.prompts:
            c = self.s.post("/v1/completions", prompt=p, max_tokens=self.answer, temperature=0, logprobs=2)["choices"][0]
            lp, clear = c["logprobs"], len(c["text"])
            for at, top in zip(lp["text_offset"], lp["top_logprobs"]):
                best = sorted(top.values())[::-1]
                if len(best) > 1 and best[0] - best[1] < CLEAR:
                    clear = min(clear, at)
                    break
            self.solo.append((c["text"], clear))

    def body(self, rng):
        """A request, and the number of its prompt where its answer is known."""
        kind = rng.choice(["greedy"] * 4 + ["sampled"] * 3 + ["penalized", "filtered", "json", "chat", "many", "scored"])
        i = rng.randrange(len(self.prompts))
        body = dict(prompt=self.prompts[i], max_tokens=self.answer, temperature=0, stream=rng.random() < 0.7)
        if kind in ("json", "chat"):
            body = dict(messages=[dict(role="user", content="word " * rng.randrange(1, 60))], max_tokens=self.answer, temperature=rng.choice([0, 1]), stream=body["stream"])
            if kind == "json":
                body["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
            return "/v1/chat/completions", body, None
        body |= {"greedy": {}, "sampled": dict(temperature=rng.choice([0.7, 1, 1.3]), top_p=rng.choice([0.9, 1]), seed=rng.randrange(100)), "penalized": dict(temperature=0.8, presence_penalty=0.5, repetition_penalty=1.1),
                 "filtered": dict(temperature=1, top_k=40, min_p=0.05), "many": dict(n=3, temperature=1), "scored": dict(logprobs=3)}[kind]
        return "/v1/completions", body, i if kind in ("greedy", "scored") else None

    def note(self, what, wrong=None):
        with self.lock:
            self.count[what] = self.count.get(what, 0) + 1
            if wrong:
                self.wrong.append(wrong)

    def compare(self, i, text):
        if i is None or self.solo is None:
            return
        want, clear = self.solo[i]
        self.note("compared")
        if text[:clear] != want[:clear]:
            with self.lock:
                self.differs.append((len(self.prompts[i]), text[:clear], want[:clear]))

    def one(self, rng):
        path, body, i = self.body(rng)
        leaves = rng.random() < 0.2
        c = self.s.connect()
        try:
            c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            if leaves and (not body["stream"] or rng.random() < 0.5):
                time.sleep(rng.random() * 0.5)
                if rng.random() < 0.5:
                    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                return self.note("left")
            r = c.getresponse()
            if r.status != 200:
                data = r.read()
                self.note(r.status, None if r.status == 503 and int(r.headers["Retry-After"]) >= 1 else (r.status, data[:200], str(body)[:200]))
                time.sleep(0.2)
                return
            if leaves:
                r.read1(200)
                return self.note("left")
            data = r.read().decode()
            if body["stream"]:
                events = [x[6:] for x in data.split("\n\n") if x.startswith("data: ")]
                chunks = [json.loads(x) for x in events[:-1]]
                bad = events[-1:] != ["[DONE]"] or any("error" in x for x in chunks)
                self.note(200, ("stream", data[-300:]) if bad else None)
                if not bad and "prompt" in body:
                    self.compare(i, "".join(ch["text"] for x in chunks for ch in x["choices"]))
            else:
                a = json.loads(data)
                self.note(200)
                if "prompt" in body:
                    self.compare(i, a["choices"][0]["text"])
        except OSError as e:
            self.note("broken", ("connection", repr(e), str(body)[:200]))
        finally:
            c.close()

    def run(self, seconds, seed):
        end = time.time() + seconds
        def client(k):
            rng = random.Random(f"{seed} {k}")
            while time.time() < end:
                self.one(rng)
        threads = [threading.Thread(target=client, args=(k,)) for k in range(self.clients)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    def speed(self, clients, tokens):
        """Tokens a second of so many clients, each with one answer."""
        body = lambda k: dict(prompt=self.prompts[0] + [k], max_tokens=tokens, temperature=0, logit_bias={str(self.end): -100})
        threads = [threading.Thread(target=self.s.post, args=("/v1/completions",), kwargs=body(k)) for k in range(clients)]
        start = time.time()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return clients * tokens / (time.time() - start)

    def short_beside_long(self):
        """The time to the first token of a short request while a long prompt is read, in steps of the engine."""
        rng = random.Random(self.seed + 99)
        long = threading.Thread(target=self.s.post, args=("/v1/completions",), kwargs=dict(prompt=self.cut(rng, self.longest), max_tokens=1))
        before = self.s.metrics()
        long.start()
        while self.s.metrics()["gyre_steps_total"] == before["gyre_steps_total"] and long.is_alive():
            time.sleep(0.001)
        steps, start = self.s.metrics(), time.time()
        self.s.post("/v1/completions", prompt=self.cut(rng, 10), max_tokens=1, temperature=0)
        took, after = time.time() - start, self.s.metrics()
        inside = long.is_alive()
        long.join()
        end = self.s.metrics()
        chunk = (end["gyre_step_seconds_total"] - before["gyre_step_seconds_total"]) / max(1, end["gyre_steps_total"] - before["gyre_steps_total"])
        return inside, after["gyre_steps_total"] - steps["gyre_steps_total"], took / chunk, took, chunk


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("gyre")
    a.add_argument("model")
    a.add_argument("--device", default="cpu")
    for name, value in dict(clients=32, seconds=60, slots=8, context=2048, longest=1500, answer=24, seed=1).items():
        a.add_argument("--" + name, type=int, default=value)
    a.add_argument("--faster", type=float, default=3, help="how many times the tokens a second of one client eight must have")
    a.add_argument("--serve-args", default="")
    a = a.parse_args()
    failed = 0
    def report(good, what, *figures):
        nonlocal failed
        failed += not good
        print("ok  " if good else "FAIL", what, *figures, flush=True)
    s = Server(a.gyre, a.model, "--device", a.device, "--slots", a.slots, "--context", a.context, *shlex.split(a.serve_args))
    try:
        load = Load(s, a.clients, a.longest, a.answer, a.seed)
        eos = s.ask("GET", "/tokenizer_info")[1]
        load.end = s.post("/tokenize", prompt=json.loads(eos)["eos_token"], add_special_tokens=False)["tokens"][0]
        start = s.rss()
        load.alone()
        # What a busy server keeps: threads, graphs, buffers of answers. The slower the machine, the more rounds until it has seen
        # all kinds of requests.
        rss = [start]
        while len(rss) < 3 or (rss[-1] > rss[-2] * 1.01 and len(rss) < 20):
            load.run(a.seconds / 4, f"warm {len(rss)}")
            report(s.settle(60) is not None, f"after round {len(rss)} nothing runs")
            rss.append(s.rss())
        before = rss[-1]
        load.run(a.seconds, "load")
        m = s.settle(60)
        report(m is not None and m["gyre_kv_pages_held"] == 0, "after the load nothing runs, and no page is held")
        time.sleep(1)
        after = s.rss()
        report(not load.wrong and load.count.get(200, 0) > 0, "no status but 200 and 503", dict(sorted(load.count.items(), key=str)), load.wrong[:2])
        report(load.count.get("left", 0) > 0, "some went away:", load.count.get("left", 0))
        report(load.count.get("compared", 0) > 0 and not load.differs, "answers of temperature 0 are those of one alone:", load.count.get("compared", 0), "compared,", len(load.differs), "differ", load.differs[:1])
        report(abs(after - before) <= max(0.02 * before, 4), "memory is what it was:", f"{start:.1f} MiB at the start, {before:.1f} after {len(rss) - 1} rounds, {after:.1f} at the end")
        load.speed(8, 8)
        pairs = [(load.speed(1, 48), load.speed(8, 48)) for _ in range(3)]
        ratio = sorted(y / x for x, y in pairs)[1]
        report(ratio >= a.faster, "tokens a second of 8 clients over those of one:", f"{ratio:.2f}", [f"{x:.1f}/{y:.1f}" for x, y in pairs])
        tries = [load.short_beside_long() for _ in range(3)]
        inside = [t for t in tries if t[0]]
        report(inside and sorted(t[2] for t in inside)[len(inside) // 2] <= 2.25, "a short request beside a long prompt:", [f"{t[1]:.0f} steps, {t[3] * 1e3:.0f} ms, {t[2]:.2f} chunks of {t[4] * 1e3:.0f} ms" + ("" if t[0] else " (the long one had ended)") for t in tries])
        report(s.p.poll() is None and s.ask("GET", "/health")[0] == 200, "it lives")
    except (OSError, AssertionError) as e:
        report(False, "it answers:", repr(e), "" if s.p.poll() is None else f"it has ended with status {s.p.returncode}")
    finally:
        status = s.stop()
    report(status == 0, "it ends with status 0:", status)
    if s.said:
        print("it said:", "".join(s.said)[:500])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
