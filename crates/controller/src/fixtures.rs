//! Builders of domain objects for tests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{
    BackendRef, BackendService, Backends, DeliveryChoice, FarEnd, GivenEndpoint, InterfaceView, Mac, NextHopView, Node,
    NodeView, Object, Place, Protocol, Role, ServiceName, ServicePort, Slice, SliceEndpoint, SliceOrigin, SlicePort,
    SliceSubset, VipPort, VirtualService,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

pub(crate) fn service_name(text: &str) -> ServiceName {
    ServiceName::parse(text).unwrap_or_else(|| panic!("{text} is no namespace/name"))
}

/// A VirtualService, with no address, port or endpoint yet.
pub(crate) fn virtual_service(name: &str) -> VirtualServiceBuilder {
    let name = service_name(name);
    VirtualServiceBuilder(VirtualService {
        place: Place { object: format!("VirtualService {name}"), ..Place::default() },
        name,
        created: 0,
        generation: 0,
        addresses: Vec::new(),
        ports: Vec::new(),
        backends: Backends::Given(Vec::new()),
        client_ip: false,
        delivery: DeliveryChoice::Auto,
    })
}

pub(crate) struct VirtualServiceBuilder(VirtualService);

impl VirtualServiceBuilder {
    pub(crate) fn vip(mut self, address: &str) -> Self {
        self.0.addresses.push(ip(address));
        self.0.addresses.sort();
        self
    }

    pub(crate) fn tcp(self, port: u16) -> Self {
        self.port(Protocol::Tcp, port)
    }

    pub(crate) fn udp(self, port: u16) -> Self {
        self.port(Protocol::Udp, port)
    }

    fn port(mut self, protocol: Protocol, port: u16) -> Self {
        self.0.ports.push(VipPort { protocol, port });
        self.0.ports.sort();
        self
    }

    pub(crate) fn created(mut self, at: i64) -> Self {
        self.0.created = at;
        self
    }

    pub(crate) fn delivery(mut self, delivery: DeliveryChoice) -> Self {
        self.0.delivery = delivery;
        self
    }

    pub(crate) fn client_ip(mut self) -> Self {
        self.0.client_ip = true;
        self
    }

    pub(crate) fn in_line(mut self, line: usize) -> Self {
        self.0.place.line = line;
        self
    }

    pub(crate) fn backend(mut self, name: &str, weight: u32) -> Self {
        let reference = BackendRef { name: name.to_owned(), weight };
        match &mut self.0.backends {
            Backends::Refs(refs) => refs.push(reference),
            given @ Backends::Given(_) => *given = Backends::Refs(vec![reference]),
        }
        self
    }

    pub(crate) fn endpoint(self, address: &str) -> Self {
        self.given(GivenEndpoint { address: ip(address), weight: 1, tunnel: None, delivery: None, port: None })
    }

    pub(crate) fn endpoint_of_weight(self, address: &str, weight: u32) -> Self {
        self.given(GivenEndpoint { address: ip(address), weight, tunnel: None, delivery: None, port: None })
    }

    pub(crate) fn endpoint_on(self, address: &str, tunnel: &str, port: u16) -> Self {
        let (address, tunnel, port) = (ip(address), Some(ip(tunnel)), Some(port));
        self.given(GivenEndpoint { address, weight: 1, tunnel, delivery: None, port })
    }

    pub(crate) fn endpoint_behind(self, address: &str, tunnel: &str, delivery: DeliveryChoice) -> Self {
        self.given(GivenEndpoint {
            address: ip(address),
            weight: 1,
            tunnel: Some(ip(tunnel)),
            delivery: Some(delivery),
            port: None,
        })
    }

    fn given(mut self, endpoint: GivenEndpoint) -> Self {
        if let Backends::Given(endpoints) = &mut self.0.backends {
            endpoints.push(endpoint);
            endpoints.sort();
        }
        self
    }

    pub(crate) fn build(self) -> VirtualService {
        self.0
    }
}

impl From<VirtualServiceBuilder> for Object {
    fn from(builder: VirtualServiceBuilder) -> Self {
        Self::VirtualService(builder.0)
    }
}

/// A Service with ports (name, number), TCP.
pub(crate) fn service(name: &str, ports: &[(&str, u16)]) -> Object {
    service_with_target(name, ports, None)
}

/// A Service with one port, TCP, whose targetPort is a name.
pub(crate) fn service_with_named_target(name: &str, port: u16, target: &str) -> Object {
    service_with_target(name, &[("http", port)], Some(target))
}

fn service_with_target(name: &str, ports: &[(&str, u16)], target: Option<&str>) -> Object {
    let port = |(name, port): &(&str, u16)| ServicePort {
        name: (*name).to_owned(),
        protocol: Protocol::Tcp,
        port: *port,
        target_name: target.map(str::to_owned),
    };
    Object::Service(BackendService {
        name: service_name(name),
        ports: ports.iter().map(port).collect(),
        cluster_ips: Vec::new(),
        claimed: Vec::new(),
        external_name: false,
    })
}

/// An EndpointSlice `namespace/name` of a Service, with one port (name, number), TCP.
pub(crate) fn slice(name: &str, service: &str, port: (&str, u16)) -> SliceBuilder {
    SliceBuilder(Slice {
        name: service_name(name),
        origin: SliceOrigin::EndpointSlice,
        service: service.to_owned(),
        subsets: vec![SliceSubset {
            ports: vec![SlicePort { name: port.0.to_owned(), protocol: Protocol::Tcp, port: Some(port.1) }],
            endpoints: Vec::new(),
        }],
    })
}

pub(crate) struct SliceBuilder(Slice);

impl SliceBuilder {
    pub(crate) fn ready(self, address: &str, node: &str) -> Self {
        self.endpoint(address, node, true, true, false)
    }

    pub(crate) fn draining(self, address: &str, node: &str) -> Self {
        self.endpoint(address, node, false, true, true)
    }

    pub(crate) fn not_ready(self, address: &str, node: &str) -> Self {
        self.endpoint(address, node, false, false, false)
    }

    pub(crate) fn of_endpoints(mut self) -> Self {
        self.0.origin = SliceOrigin::Endpoints;
        self
    }

    pub(crate) fn without_ports(mut self) -> Self {
        self.0.subsets[0].ports.clear();
        self
    }

    fn endpoint(mut self, address: &str, node: &str, ready: bool, serving: bool, terminating: bool) -> Self {
        let node = (!node.is_empty()).then(|| node.to_owned());
        self.0.subsets[0].endpoints.push(SliceEndpoint { address: ip(address), ready, serving, terminating, node });
        self
    }
}

impl From<SliceBuilder> for Object {
    fn from(builder: SliceBuilder) -> Self {
        Self::Slice(builder.0)
    }
}

/// A Node with its InternalIPs.
pub(crate) fn node(name: &str, internal_ips: &[&str]) -> Object {
    Object::Node(Node {
        name: name.to_owned(),
        internal_ips: internal_ips.iter().map(|text| ip(text)).collect(),
        labels: BTreeMap::new(),
        ready: true,
    })
}

/// The view of a node that is director and decap, with `eth0` (index 2) of these addresses.
pub(crate) fn view(node: &str, addresses: &[&str]) -> ViewBuilder {
    let view = NodeView {
        node: node.to_owned(),
        roles: vec![Role::Director, Role::Decap],
        tunnel: addresses.iter().map(|text| net(text).addr()).collect(),
        interfaces: Vec::new(),
        next_hops: Vec::new(),
        attached: Vec::new(),
    };
    ViewBuilder(view).interface("eth0", 2, addresses)
}

#[derive(Clone)]
pub(crate) struct ViewBuilder(NodeView);

impl ViewBuilder {
    pub(crate) fn interface(mut self, name: &str, index: u32, addresses: &[&str]) -> Self {
        self.0.interfaces.push(InterfaceView {
            name: name.to_owned(),
            index,
            mac: Some(Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap_or(u8::MAX)])),
            mtu: 1500,
            addresses: addresses.iter().map(|text| net(text)).collect(),
            parent: None,
            vlan: None,
            far_end: None,
        });
        self
    }

    /// Makes the last interface a VLAN device.
    pub(crate) fn vlan(mut self, parent: &str, id: u16) -> Self {
        let interface = self.last();
        interface.parent = Some(parent.to_owned());
        interface.vlan = Some((0x8100, id));
        self
    }

    /// Makes the last interface a veth.
    pub(crate) fn far_end(mut self, far_end: FarEnd) -> Self {
        self.last().far_end = Some(far_end);
        self
    }

    fn last(&mut self) -> &mut InterfaceView {
        self.0.interfaces.last_mut().expect("a view has an interface")
    }

    pub(crate) fn on_link(self, to: &str, interface: &str) -> Self {
        self.entry(NextHopView { to: net(to), via: None, mac: None, interface: interface.to_owned(), mtu: 1500 })
    }

    pub(crate) fn route(self, to: &str, via: &str, interface: &str, mtu: u32) -> Self {
        self.entry(NextHopView { to: net(to), via: Some(ip(via)), mac: None, interface: interface.to_owned(), mtu })
    }

    pub(crate) fn neighbour(self, address: &str, interface: &str, last_byte: u8) -> Self {
        let mac = Some(Mac([2, 0, 0, 0, 1, last_byte]));
        self.entry(NextHopView { to: ip(address).into(), via: None, mac, interface: interface.to_owned(), mtu: 1500 })
    }

    fn entry(mut self, entry: NextHopView) -> Self {
        self.0.next_hops.push(entry);
        self.0.next_hops.sort_by_key(|entry| std::cmp::Reverse(entry.to.prefix_len()));
        self
    }

    pub(crate) fn roles(mut self, roles: &[Role]) -> Self {
        self.0.roles = roles.to_vec();
        self
    }

    pub(crate) fn build(self) -> NodeView {
        self.0
    }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_else(|_| panic!("{text} is no network"))
}
