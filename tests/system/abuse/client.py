"""The control socket from a caller's side, without scruples: any bytes, any order, HTTP and WebSocket."""

import socket

import jsontext

SOCKET = "/run/scorpio/scorpio.sock"
# Longest wait for any single answer: above every timeout of the daemon but those of a minute.
PATIENCE_S = 40


def connect(path=SOCKET):
    sock = socket.socket(socket.AF_UNIX)
    # Not before: with a time limit it would fail where the backlog is full instead of waiting.
    sock.connect(path)
    sock.settimeout(PATIENCE_S)
    return sock


def request(body):
    """A JSON-RPC call as HTTP, the connection kept."""
    data = body if isinstance(body, bytes) else body.encode()
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def message(method, params=None, number=1):
    return jsontext.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})


class Reader:
    """What arrives on a socket, in pieces of the reader's choice. None stands for an end before the piece."""

    def __init__(self, sock):
        self.sock, self.bytes = sock, b""

    def _fill(self):
        try:
            more = self.sock.recv(65536)
        except ConnectionError:
            more = b""
        self.bytes += more
        return bool(more)

    def exactly(self, count):
        while len(self.bytes) < count:
            if not self._fill():
                return None
        piece, self.bytes = self.bytes[:count], self.bytes[count:]
        return piece

    def until(self, mark):
        while mark not in self.bytes:
            if not self._fill():
                return None
        piece, _, self.bytes = self.bytes.partition(mark)
        return piece

    def answer(self):
        """Status and body of one HTTP answer; (0, b"") when the connection was closed without one."""
        head = self.until(b"\r\n\r\n")
        if head is None:
            return 0, b""
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b":", 1) for line in lines[1:])
        fields = {name: value.strip() for name, value in fields.items()}
        if fields.get(b"transfer-encoding") == b"chunked":
            body = self._chunks()
        else:
            body = self.exactly(int(fields.get(b"content-length", b"0")))
        return int(lines[0].split(b" ")[1]), body or b""

    def _chunks(self):
        body = b""
        while size := int(self.until(b"\r\n") or b"0", 16):
            body += self.exactly(size) or b""
            self.exactly(2)
        self.exactly(2)
        return body


def send(sock, data):
    """Sends what is taken: the other side may have said no and closed meanwhile."""
    try:
        sock.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def exchange(data, sock=None):
    """Sends bytes, and reads one answer."""
    own = sock or connect()
    try:
        send(own, data)
        return Reader(own).answer()
    finally:
        if own is not sock:
            own.close()


def call(method, params=None, sock=None):
    """A JSON-RPC answer. An answer in HTTP alone, or none, looks like an error without a kind."""
    return parsed(*exchange(request(message(method, params)), sock))


def parsed(status, body):
    if status != 200:
        return {"error": {"code": f"HTTP {status}" if status else "closed"}}
    return jsontext.loads(body.decode())


def outcome(reply):
    """What came back, as the table says it."""
    if reply is None:
        return "no answer, as to a notification"
    error = reply.get("error")
    if error is None:
        return "allowed"
    data = error.get("data")
    kind = data.get("kind") if isinstance(data, dict) else None  # those of JSON-RPC itself have a text, or nothing
    return f"{error['code']} `{kind}`" if kind else str(error["code"])


class WebSocket:
    """Just enough of RFC 6455 to break it."""

    HANDSHAKE = (
        b"GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    TEXT, CLOSE, PING, PONG = 1, 8, 9, 10

    def __init__(self):
        self.sock = connect()
        self.reader = Reader(self.sock)
        self.sock.sendall(self.HANDSHAKE)
        status, _ = self.reader.answer()
        if status != 101:
            raise ConnectionError(f"no WebSocket: HTTP {status}")

    @staticmethod
    def frame(payload, opcode=TEXT, final=True, masked=True):
        data = payload if isinstance(payload, bytes) else payload.encode()
        mask = 0x80 if masked else 0
        head = bytes([(0x80 if final else 0) | opcode, mask | 127]) + len(data).to_bytes(8, "big")
        if opcode >= 8 and len(data) < 126:
            head = bytes([(0x80 if final else 0) | opcode, mask | len(data)])
        return head + (bytes(4) if masked else b"") + data  # a mask of zeros changes nothing

    def send(self, payload, **how):
        send(self.sock, self.frame(payload, **how))

    def read(self):
        """The next frame's opcode and payload; a close is (CLOSE, …) or None, as it comes."""
        head = self.reader.exactly(2)
        if head is None:
            return None
        length = head[1] & 127
        if length >= 126:
            length = int.from_bytes(self.reader.exactly(2 if length == 126 else 8) or b"", "big")
        return head[0] & 15, self.reader.exactly(length) or b""

    def texts(self):
        """Messages, until the connection ends."""
        while (frame := self.read()) and frame[0] != self.CLOSE:
            if frame[0] == self.TEXT:
                yield jsontext.loads(frame[1].decode())

    def ask(self, method, params=None):
        """The answer to a call; events that come before it are passed over."""
        self.send(message(method, params))
        for text in self.texts():
            if "id" in text:
                return text
        return {"error": {"code": "closed"}}
