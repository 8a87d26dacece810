import concurrent.futures, hashlib, multiprocessing, os, queue, threading

jobs, results = queue.Queue(50), queue.Queue()
lock, counter, total = threading.Lock(), 0, 0

def worker():
    global counter
    while (job := jobs.get()) is not None:
        with lock:
            counter += 1
        results.put(hashlib.sha256(b"%d" % job * 1000).digest()[0])

threads = [threading.Thread(target=worker) for _ in range(8)]
for t in threads: t.start()
for job in range(2000): jobs.put(job)
for _ in threads: jobs.put(None)
for t in threads: t.join()
print(counter, sum(results.get() for _ in range(2000)))

barrier, turns = threading.Barrier(4), []
def turn(n):
    for r in range(25):
        barrier.wait()
        with lock: turns.append(r)
threads = [threading.Thread(target=turn, args=(n,)) for n in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(len(turns), all(turns.count(r) == 4 for r in range(25)))

condition, ball = threading.Condition(), 0
def player(parity):
    global ball
    for _ in range(1000):
        with condition:
            while ball % 2 != parity: condition.wait()
            ball += 1
            condition.notify()
threads = [threading.Thread(target=player, args=(p,)) for p in (0, 1)]
for t in threads: t.start()
for t in threads: t.join()
print(ball)

def digest(n):
    h = b""
    for i in range(2000): h = hashlib.sha256(h + b"%d" % (n + i)).digest()
    return h[0]

def square(n): return n * n

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as pool:
        print(sum(pool.map(square, range(1000), 50)), pool.map(digest, range(8)))
    value = context.Value("i", 0)
    def bump():
        for _ in range(500):
            with value.get_lock(): value.value += 1
    children = [context.Process(target=bump) for _ in range(4)]
    for c in children: c.start()
    for c in children: c.join()
    print(value.value, [c.exitcode for c in children])
    r, w = os.pipe()
    if os.fork() == 0:
        os.close(r); os.write(w, b"x" * 60000); os._exit(9)
    os.close(w)
    got = 0
    while piece := os.read(r, 4096): got += len(piece)
    print(got, os.waitstatus_to_exitcode(os.wait()[1]))
    with concurrent.futures.ThreadPoolExecutor(16) as executor:
        print(list(executor.map(digest, range(6))))
