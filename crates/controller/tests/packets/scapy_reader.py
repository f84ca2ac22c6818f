"""Reads a capture with scapy and has it build every header anew: a length or checksum that was wrong comes out otherwise."""
import sys

from scapy.all import IP, IPv6, UDP, rdpcap


def rebuilt(packet):
    """The packet with lengths and checksums computed by scapy."""
    copy = packet.copy()
    layer = copy
    while layer and layer.name not in ("Raw", "Padding", "NoPayload"):
        for field in ("len", "chksum", "plen", "cksum"):
            if field in layer.fields and not (field == "chksum" and isinstance(layer, UDP) and layer.chksum == 0):
                delattr(layer, field)
        layer = layer.payload
    return bytes(copy)


for number, frame in enumerate(rdpcap(sys.argv[1])):
    outer = frame.payload
    while outer.name not in ("IP", "IPv6"):
        outer = outer.payload
    assert bytes(outer) == rebuilt(outer), f"outer of packet {number}: {outer.show2(dump=True)}"
    gue = bytes(outer[UDP].payload)
    assert gue[0] >> 5 == 0 and gue[2:4] == b"\0\0", f"GUE header of packet {number}: {gue[:4].hex()}"
    inner = gue[4 + 4 * (gue[0] & 31):]
    parsed = {4: IP, 41: IPv6}[gue[1]](inner)
    assert inner == rebuilt(parsed), f"inner of packet {number}: {parsed.show2(dump=True)}"
    print(number, outer.src, outer.dst, outer[UDP].sport, inner.hex())
