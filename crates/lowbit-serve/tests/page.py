"""The page for chats in headless Chromium: something is said by a click, the answer is read, another one is stopped.

Usage: page.py PROGRAM PICTURE [dark]. Exits with 77 where there is no Chromium. The picture is for a person to look at.
"""

import atexit
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

BROWSER = next((path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), None)


class Page:
    """A page of a browser, spoken to by its DevTools protocol over a WebSocket (RFC 6455)."""

    def __init__(self, url, width, height, dark):
        self.home = tempfile.mkdtemp()
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command += ["--disable-component-update", "--remote-debugging-port=0", "--remote-allow-origins=*", "--user-data-dir=" + self.home]
        command += ["--blink-settings=preferredColorScheme=0"] if dark else []
        self.browser = subprocess.Popen(command + [url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        atexit.register(self.browser.kill)
        target = self.wait(self.target)
        host, path = target.removeprefix("ws://").split("/", 1)
        self.socket = socket.create_connection(host.split(":"), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        head = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self.file, self.number = self.socket.makefile("rb"), 0
        while self.file.readline().strip():
            pass
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def target(self):
        with open(os.path.join(self.home, "DevToolsActivePort")) as file:
            port = file.readline().strip()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
            return next(page["webSocketDebuggerUrl"] for page in json.load(answer) if page["type"] == "page")

    def wait(self, what, seconds=60):
        end = time.time() + seconds
        while time.time() < end:
            try:
                if found := what():
                    return found
            except (OSError, StopIteration, ValueError):
                pass
            time.sleep(0.1)
        raise TimeoutError(what)

    def ask(self, method, **parameters):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": parameters}).encode()
        length = bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(data))
        mask = os.urandom(4)
        self.socket.sendall(b"\x81" + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))
        while True:
            size = self.file.read(2)[1] & 127
            size = struct.unpack(">H", self.file.read(2))[0] if size == 126 else size
            size = struct.unpack(">Q", self.file.read(8))[0] if size == 127 else size
            message = json.loads(self.file.read(size))
            if message.get("id") == self.number:
                return message["result"]

    def run(self, code):
        return self.ask("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def end(self, picture):
        with open(picture, "wb") as file:
            file.write(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))
        self.browser.terminate()
        self.browser.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def main():
    if BROWSER is None:
        sys.exit(77)
    program, picture, dark = sys.argv[1], sys.argv[2], "dark" in sys.argv
    server = subprocess.Popen([program, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    url = server.stdout.readline().split(" at ")[1].split("/v1")[0]
    page = Page(url, *((390, 780) if dark else (1000, 700)), dark)
    page.wait(lambda: (page.run("at('model').textContent") or "").startswith("lowbit"))
    done = "at('stop').hidden && at('speed').textContent.includes('tokens/s')"
    page.run("at('most').value = '120'; at('text').value = 'This film is'; at('send').click()")
    page.wait(lambda: page.run(done))
    turns = page.run("[...document.querySelectorAll('.turn')].map((turn) => turn.textContent)")
    assert len(turns) == 2 and turns[0] == "This film is" and len(turns[1]) > 10, turns
    assert not page.run("document.documentElement.scrollWidth > innerWidth"), "the page is wider than the window"
    # Stopped before its first token, the turn is gone again; stopped later, it is shorter than it would be.
    page.run("at('most').value = '240'; at('text').value = 'Go on'; at('send').click(); setTimeout(() => at('stop').click(), 0)")
    page.wait(lambda: page.run("at('stop').hidden"))
    turns = page.run("[...document.querySelectorAll('.turn')].map((turn) => turn.textContent)")
    assert len(turns) < 4 or len(turns[3]) < 240, turns
    page.end(picture)
    server.terminate()
    assert server.wait(60) == 0


if __name__ == "__main__":
    main()
