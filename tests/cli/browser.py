"""A headless Chromium, spoken to over two pipes (its DevTools protocol). Standard library only."""
import base64, json, os, shutil, subprocess, tempfile, time

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    def __init__(self, width=1280, height=800):
        self.dir = tempfile.mkdtemp(prefix="gyre-browser-")
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def pipes():  # the protocol reads from 3 and writes to 4
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3)
            os.dup2(b, 4)
        self.p = subprocess.Popen([PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
                                   f"--user-data-dir={self.dir}", "about:blank"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  preexec_fn=pipes, close_fds=False)
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.out, self.rest, self.id, self.events = ours_in, ours_out, b"", 0, []
        target = [x for x in self.command("Target.getTargets", session=None)["targetInfos"] if x["type"] == "page"][0]
        self.session = self.command("Target.attachToTarget", session=None, targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(domain + ".enable")
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.reader, 1 << 16)
            if not more:
                raise AssertionError("the browser is gone")
            self.rest += more
        one, self.rest = self.rest.split(b"\0", 1)
        return json.loads(one)

    def command(self, method, session=True, **params):
        self.id += 1
        what = dict(id=self.id, method=method, params=params, **({"sessionId": self.session} if session else {}))
        os.write(self.out, json.dumps(what).encode() + b"\0")
        while True:
            m = self.message()
            if m.get("id") == self.id:
                if "error" in m:
                    raise AssertionError(f"{method}: {m['error']}")
                return m["result"]
            self.events.append(m)

    def js(self, code):
        r = self.command("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise AssertionError(f"{code}: {r['exceptionDetails']}")
        return r["result"].get("value")

    def wait(self, code, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            if self.js(code):
                return True
            time.sleep(0.1)
        return False

    def open(self, address):
        self.js("globalThis.before = true")  # where that is gone, the new page is there
        self.command("Page.navigate", url=address)
        return self.wait("document.readyState === 'complete' && !globalThis.before")

    def key(self, name, number, text=""):
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=number, **({"text": text} if text and kind == "keyDown" else {}))

    def write(self, text):
        self.command("Input.insertText", text=text)

    def picture(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))

    def complaints(self):
        """What went wrong on the page: errors of scripts, refused loads."""
        return [json.dumps(e["params"])[:300] for e in self.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]

    def close(self):
        os.close(self.out)
        os.close(self.reader)
        self.p.terminate()
        self.p.wait(20)
        shutil.rmtree(self.dir, ignore_errors=True)
