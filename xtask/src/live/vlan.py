"""Sends ICMP echo requests for VIPs with 0, 1 and 2 VLAN tags, and wants the replies to carry the same tags.

Usage: vlan.py INTERFACE MAC
"""
import sys

from scapy.all import Dot1AD, Dot1Q, Ether, ICMP, ICMPv6EchoReply, ICMPv6EchoRequest, IP, IPv6, Raw, conf, srp1

interface, mac = sys.argv[1:3]
conf.verb = 0

TAGS = {
    "no tag": [],
    "one tag": [Dot1Q(vlan=100, prio=3)],
    "two tags": [Dot1AD(vlan=200), Dot1Q(vlan=100)],
}
PACKETS = {
    "IPv4": IP(src="198.51.100.9", dst="203.0.113.10") / ICMP(id=7, seq=1) / Raw(b"guenon" * 10),
    "IPv6": IPv6(src="2001:db8:c::9", dst="2001:db8:f::10") / ICMPv6EchoRequest(id=7, seq=1, data=b"guenon" * 10),
}


def tags(frame):
    """The VLAN ids of a frame, outer first."""
    layers = (frame.getlayer(n) for n in range(len(frame.layers())))
    return [layer.vlan for layer in layers if isinstance(layer, Dot1Q)]


failed = False
for family, packet in PACKETS.items():
    for kind, layers in TAGS.items():
        frame = Ether(dst=mac)
        for layer in layers:
            frame = frame / layer.copy()
        reply = srp1(frame / packet.copy(), iface=interface, timeout=3)
        if reply is None:
            print(f"{family}, {kind}: no reply", file=sys.stderr)
            failed = True
        elif tags(reply) != [layer.vlan for layer in layers]:
            print(f"{family}, {kind}: the reply carries {tags(reply)}: {reply.summary()}", file=sys.stderr)
            failed = True
        elif not (reply.haslayer(ICMPv6EchoReply) or (reply.haslayer(ICMP) and reply[ICMP].type == 0)):
            print(f"{family}, {kind}: that is no echo reply: {reply.summary()}", file=sys.stderr)
            failed = True
sys.exit(failed)
