"""Reads two captures, of packets before and after their translation, and has scapy translate the first ones itself: other
addresses and ports, all lengths and checksums computed anew. Arguments: the captures, and for each family VIP and pod."""
import sys

from scapy.all import ICMP, TCP, UDP, ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IP, IPv6, rdpcap
from scapy.layers.inet import IPerror, TCPerror, UDPerror
from scapy.layers.inet6 import IPerror6

PORTS = {80: 8080, 81: 8080}
ERRORS = (ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded)
names = dict(zip(sys.argv[3::2], sys.argv[4::2]))
back = {pod: vip for vip, pod in names.items()}


def anew(packet):
    """Has scapy compute what it can."""
    layer = packet
    while layer.name not in ("Raw", "Padding", "NoPayload"):
        for field in ("len", "plen", "chksum", "cksum"):
            if field in layer.fields:
                delattr(layer, field)
        layer = layer.payload
    return bytes(packet)


def translated(packet):
    """What a pod, or its client, must see."""
    if packet.dst in names:
        packet.dst = names[packet.dst]
        transport = packet.getlayer(TCP) or packet.getlayer(UDP)
        quote, at = packet.getlayer(IPerror) or packet.getlayer(IPerror6), "sport"
        if quote:
            quote.src = names[quote.src]
        elif transport:
            transport.dport = PORTS[transport.dport]
    else:
        assert packet.src in back, packet.summary()
        packet.src = back[packet.src]
        transport = packet.getlayer(TCP) or packet.getlayer(UDP)
        quote, at = packet.getlayer(IPerror) or packet.getlayer(IPerror6), "dport"
        if quote:
            quote.dst = back[quote.dst]
        elif transport:
            transport.sport = 80
    if quote:
        quoted = packet.getlayer(TCPerror) or packet.getlayer(UDPerror)
        setattr(quoted, at, 8080 if at == "sport" else 80)
    assert bool(quote) == (ICMP in packet or any(kind in packet for kind in ERRORS)), packet.summary()
    return anew(packet)


before, after = rdpcap(sys.argv[1]), rdpcap(sys.argv[2])
assert len(before) == len(after)
for number, (given, got) in enumerate(zip(before, after)):
    ip = IPv6 if IPv6 in given else IP
    wanted, seen = translated(given[ip]), bytes(got[ip])
    assert wanted == seen, f"packet {number}:\n got {seen.hex()}\nwant {wanted.hex()}"
    print(number, got[ip].summary())
