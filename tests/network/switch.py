#!/usr/bin/env python3
"""A switch with bad cables: forwards Ethernet frames between interfaces, each direction of each pair of ports with its
own delay, jitter, loss and duplication, or not at all.

It does in user space what `tc netem` does in the kernel. Reasons: netem is missing in many kernels of virtual machines,
it knows interfaces and not pairs of nodes, and its losses cannot be repeated by a seed.

    switch.py SEED INTERFACE...      port i is the i-th interface

Commands come as lines of JSON on standard input, each answered by one line:

    {"links": [[FROM, TO, {"delay_ms": 25, "jitter_ms": 0, "loss": 0.01, "duplicate": 0, "up": true}], ...]}
    {"counters": true}

Frames are unicast to MAC addresses that end in the port's number plus one; everything else is dropped. The end of the
standard input ends the switch.
"""
import gc
import heapq
import json
import os
import random
import select
import socket
import sys
import time

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_IGNORE_OUTGOING = 23
ETH_P_ALL = 0x0003

# With PACKET_VNET_HDR every frame comes after a header of this size, which says whether its checksum is still to be
# computed. Written back as it came, it lets the kernel do so.
VNET_HEADER_BYTES = 10
FRAME_BYTES_MAX = VNET_HEADER_BYTES + (1 << 16) + 64
# The last byte of the frame's destination address.
PORT_BYTE = VNET_HEADER_BYTES + 5

SOCKET_BUFFER_BYTES = 32 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33

# Frames under way at once; a queue this long means that the emulation cannot keep up.
IN_FLIGHT_MAX = 200_000


class Link:
    """One direction of a pair of ports."""

    def __init__(self):
        self.delay = self.jitter = self.loss = self.duplicate = 0.0
        self.up = True

    def set(self, delay_ms=0, jitter_ms=0, loss=0, duplicate=0, up=True):
        self.delay, self.jitter = delay_ms / 1000, jitter_ms / 1000
        self.loss, self.duplicate, self.up = loss, duplicate, up


class Switch:
    def __init__(self, seed, interfaces):
        self.random = random.Random(seed)
        self.ports = [open_port(interface) for interface in interfaces]
        self.number = {port.fileno(): number for number, port in enumerate(self.ports)}
        count = len(interfaces)
        self.links = [[Link() for _ in range(count)] for _ in range(count)]
        # (due, order of arrival, port, frame): the order keeps frames of equal delay in sequence.
        self.in_flight = []
        self.arrivals = 0
        self.counters = dict(forwarded=0, lost=0, blocked=0, overflow=0, refused=0, late_us_max=0)

    def receive(self, port):
        """Takes what has arrived at a port and gives each frame its time to leave."""
        source = self.number[port.fileno()]
        for _ in range(64):
            try:
                frame = port.recv(FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            target = frame[PORT_BYTE] - 1 if len(frame) > PORT_BYTE else -1
            if frame[VNET_HEADER_BYTES] & 1 or not 0 <= target < len(self.ports) or target == source:
                continue
            self.schedule(self.links[source][target], target, frame)

    def schedule(self, link, target, frame):
        draw = self.random.random
        if not link.up:
            self.counters["blocked"] += 1
            return
        copies = 2 if link.duplicate and draw() < link.duplicate else 1
        for _ in range(copies):
            if link.loss and draw() < link.loss:
                self.counters["lost"] += 1
                continue
            if len(self.in_flight) >= IN_FLIGHT_MAX:
                self.counters["overflow"] += 1
                continue
            jitter = (2 * draw() - 1) * link.jitter if link.jitter else 0
            due = time.monotonic() + max(0, link.delay + jitter)
            self.arrivals += 1
            heapq.heappush(self.in_flight, (due, self.arrivals, target, frame))

    def deliver(self):
        """Sends what is due; answers how long until the next frame is, or None."""
        while self.in_flight:
            wait = self.in_flight[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, target, frame = heapq.heappop(self.in_flight)
            self.counters["late_us_max"] = max(self.counters["late_us_max"], int(-wait * 1e6))
            try:
                self.ports[target].send(frame)
                self.counters["forwarded"] += 1
            except OSError:
                # A full queue, or an interface that is being removed: as on a cable, the frame is gone.
                self.counters["refused"] += 1
        return None

    def command(self, line):
        command = json.loads(line)
        for source, target, values in command.get("links", []):
            self.links[source][target].set(**values)
        counters = dict(self.counters)
        if command.get("counters"):
            self.counters["late_us_max"] = 0
        return counters

    def run(self):
        control = os.fdopen(0, "rb", buffering=0)
        waiting = b""
        while True:
            readable, _, _ = select.select([control, *self.ports], [], [], self.deliver())
            for source in readable:
                if source is not control:
                    self.receive(source)
                    continue
                received = control.read(1 << 16)
                if not received:
                    return
                *lines, waiting = (waiting + received).split(b"\n")
                for line in lines:
                    print(json.dumps(self.command(line)), flush=True)


def open_port(interface):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    for buffer in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        port.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER_BYTES)
    port.setblocking(False)
    port.bind((interface, ETH_P_ALL))
    return port


def main():
    seed, *interfaces = sys.argv[1:]
    # A delay is only as exact as the moment this process runs: before everything else, where the system allows it, and
    # without pauses for collecting garbage, of which there is none in cycles.
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except OSError as error:
        print(f"switch: no real-time priority, delays are less exact: {error}", file=sys.stderr)
    gc.disable()
    switch = Switch(int(seed), interfaces)
    print(json.dumps({"ready": True, "ports": len(interfaces)}), flush=True)
    try:
        switch.run()
    except KeyboardInterrupt:
        pass


main()
