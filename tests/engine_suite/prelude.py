import ctypes, errno, fcntl, hashlib, mmap, os, stat, struct, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)
AT, NOREPLACE, EXCHANGE, WHITEOUT = -100, 1, 2, 4
OFD_SETLK, F_WRLCK, F_UNLCK = 37, 1, 2


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}")
    return result


def renameat2(old, new, flags):
    call("renameat2", AT, os.fsencode(old), AT, os.fsencode(new), flags)


def fallocate(fd, mode, offset, length):
    call("fallocate", fd, mode, ctypes.c_long(offset), ctypes.c_long(length))


def put(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    fd = os.open(path, flags, 0o644)
    data = data if isinstance(data, bytes) else data.encode()
    while data:
        data = data[os.write(fd, data):]
    os.close(fd)


def append(path, data):
    put(path, data, os.O_WRONLY | os.O_APPEND)


def get(path):
    with open(path, "rb") as file:
        return file.read().decode("latin1")


def same(found, expected):
    if found != expected:
        raise AssertionError(f"{found!r} instead of {expected!r}")


def refused(work, *arguments):
    """The name of the error with which it fails."""
    try:
        work(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "allowed"


def there(path):
    return os.path.lexists(path)


def processes(count, work):
    """Runs work(number) in as many processes, released together; what each ended with."""
    gate, release = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            try:
                os.close(release)
                os.read(gate, 1)
                os._exit(work(number) or 0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(200)
        children.append(child)
    os.close(gate)
    os.close(release)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def threads(count, work):
    """Runs work(number) in as many threads, released together; what each returned, or the name of its error."""
    gate, found = threading.Barrier(count), [None] * count

    def run(number):
        gate.wait()
        try:
            found[number] = work(number)
        except OSError as error:
            found[number] = errno.errorcode[error.errno]

    all = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    [thread.start() for thread in all]
    [thread.join() for thread in all]
    return found


def lock(kind):
    """struct flock over a whole file."""
    return struct.pack("hhqqi4x", kind, 0, 0, 0, 0)


