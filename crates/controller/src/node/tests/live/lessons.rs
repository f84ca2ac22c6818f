//! Packets that get through, or must not.

use super::*;

#[test]
fn lesson_6_and_10_a_veths_reply_gets_through_while_its_vip_is_on_the_nodes_loopback() {
    let bed = Bed::new();
    let vips = ["203.0.113.10", "2001:db8::10"];
    bed.keeper(|keeper| keeper.apply(&setup(&vips, [])));
    for vip in vips {
        assert!(!bed.reply_arrives(vip, 3), "{vip}: the node drops it as it is");
    }
    assert_eq!(bed.keeper(|keeper| keeper.apply(&everything("eth0", "veth7"))), []);
    for vip in vips {
        assert!(bed.reply_arrives(vip, 40), "{vip}");
    }
}

#[test]
fn lesson_10_a_vip_on_the_loopback_answers_no_arp() {
    let bed = Bed::new();
    bed.client.ip("route add 203.0.113.10/32 dev eth0");
    let is_answered = || {
        bed.client.ip("neighbour flush dev eth0");
        let socket = bed.client.inside(|| UdpSocket::bind("172.17.3.1:0").unwrap());
        socket.send_to(b"?", "203.0.113.10:9").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let tables = bed.client.inside(|| read(&mut Connection::open().unwrap()).unwrap());
        tables.neighbours.iter().any(|((_, to), neighbour)| *to == ip("203.0.113.10") && neighbour.usable().is_some())
    };
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10"], [])));
    assert!(is_answered(), "as Linux does by default");
    let quiet = [Wish::ArpIgnore("eth0".into()), Wish::ArpAnnounce("eth0".into())];
    bed.keeper(|keeper| keeper.apply(&setup(&["203.0.113.10"], quiet)));
    assert!(!is_answered());
}
