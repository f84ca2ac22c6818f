use std::sync::Arc;

use super::plan;
use crate::apply::Operation;
use crate::fixtures::{ip, service_name};
use crate::model::{EndpointState, Frontend, LocalDelivery, Path, Protocol, ServiceState, State};

/// A data path in memory that checks, after each operation, that every frontend of before and after is served.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) state: State,
}

impl Model {
    pub(crate) fn run(&mut self, operations: &[Operation], desired: &State) {
        let held = |state: &State| -> Vec<Frontend> {
            state.services.values().flat_map(|service| service.frontends.iter().copied()).collect()
        };
        let wanted = held(desired);
        let kept: Vec<_> = held(&self.state).into_iter().filter(|frontend| wanted.contains(frontend)).collect();
        for operation in operations {
            self.execute(operation);
            let now = held(&self.state);
            for frontend in &kept {
                let holders = now.iter().filter(|held| *held == frontend).count();
                assert_eq!(holders, 1, "{frontend} has {holders} holders after {operation:?}");
            }
            for service in self.state.services.values() {
                for endpoint in &service.endpoints {
                    if let Path::Tunnel { next_hop, .. } = &endpoint.path {
                        assert!(
                            self.state.next_hops.contains_key(next_hop),
                            "{next_hop:?} is gone after {operation:?}"
                        );
                    }
                }
            }
        }
    }

    fn execute(&mut self, operation: &Operation) {
        let state = &mut self.state;
        match operation.clone() {
            Operation::PutTunnel(address) => drop(state.tunnels.insert(address)),
            Operation::RemoveTunnel(address) => assert!(state.tunnels.remove(&address)),
            Operation::PutDirector(address) => drop(state.directors.insert(address)),
            Operation::RemoveDirector(address) => assert!(state.directors.remove(&address)),
            Operation::PutNextHop(key, next_hop) => drop(state.next_hops.insert(key, next_hop)),
            Operation::RemoveNextHop(key) => assert!(state.next_hops.remove(&key).is_some()),
            Operation::PutService(name, service) => {
                for other in state.services.values_mut() {
                    if !other.frontends.is_disjoint(&service.frontends) {
                        Arc::make_mut(other).drop_frontends(|frontend| service.frontends.contains(frontend));
                    }
                }
                state.services.insert(name, service);
            }
            Operation::RemoveService(name) => assert!(state.services.remove(&name).is_some()),
            Operation::SetOnNode(vip, true) => drop(state.on_node.insert(vip)),
            Operation::SetOnNode(vip, false) => drop(state.on_node.remove(&vip)),
        }
        let vips: Vec<_> = state.services.values().flat_map(|service| &service.frontends).map(|f| f.vip).collect();
        state.on_node.retain(|vip| vips.contains(vip));
    }
}

fn frontend(port: u16) -> Frontend {
    Frontend { vip: ip("203.0.113.10"), protocol: Protocol::Tcp, port }
}

fn state(services: &[(&str, &[u16])]) -> State {
    let service = |(name, ports): &(&str, &[u16])| {
        let frontends = ports.iter().map(|port| frontend(*port)).collect();
        (service_name(name), Arc::new(ServiceState { frontends, ..ServiceState::default() }))
    };
    State { services: services.iter().map(service).collect(), ..State::default() }
}

fn converge(from: &State, to: &State) -> Vec<Operation> {
    let operations = plan(to, from, None);
    let mut model = Model { state: from.clone() };
    model.run(&operations, to);
    assert_eq!(model.state, *to);
    operations
}

#[test]
fn equal_states_need_no_operation() {
    let state = state(&[("shop/a", &[80]), ("shop/b", &[443])]);
    assert_eq!(plan(&state, &state.clone(), None), []);
}

#[test]
fn a_frontend_that_moves_is_never_without_a_holder() {
    converge(&state(&[("shop/a", &[80, 81])]), &state(&[("shop/a", &[81]), ("shop/b", &[80])]));
    converge(&state(&[("shop/b", &[80, 81])]), &state(&[("shop/b", &[81]), ("shop/a", &[80])]));
    converge(&state(&[("shop/a", &[80])]), &state(&[("shop/b", &[80])]));
}

#[test]
fn services_that_swap_frontends_hold_them_until_the_other_has_taken_over() {
    let before = state(&[("shop/a", &[80]), ("shop/b", &[443]), ("shop/c", &[22])]);
    let after = state(&[("shop/a", &[443]), ("shop/b", &[22]), ("shop/c", &[80])]);
    assert_eq!(converge(&before, &after).len(), 3);
}

#[test]
fn what_services_need_comes_first_and_what_nobody_needs_goes_last() {
    let mut before = state(&[("shop/a", &[80])]);
    before.tunnels.insert(ip("172.17.2.2"));
    before.on_node.insert(ip("203.0.113.10"));
    let mut after = state(&[("shop/b", &[443])]);
    after.tunnels.insert(ip("172.17.2.3"));
    after.directors.insert(ip("172.17.3.3"));
    let shown: Vec<_> = converge(&before, &after).iter().map(|operation| format!("{operation:?}")).collect();
    let kinds: Vec<_> = shown.iter().map(|text| text.split('(').next().unwrap_or_default()).collect();
    assert_eq!(kinds, ["PutTunnel", "PutDirector", "PutService", "RemoveService", "SetOnNode", "RemoveTunnel"]);
}

#[test]
fn a_service_that_waits_for_a_taker_knows_where_its_endpoints_listen_meanwhile() {
    let pod = |ports: &[u16]| {
        let ports = ports.iter().map(|port| ((Protocol::Tcp, *port), 8000 + *port)).collect();
        EndpointState { address: ip("10.244.2.7"), path: Path::Local(LocalDelivery::Nat { ports: Arc::new(ports) }) }
    };
    let of = |services: &[(&str, &[u16])]| -> State {
        let service = |(name, ports): &(&str, &[u16])| {
            let frontends = ports.iter().map(|port| frontend(*port)).collect();
            let endpoints = vec![pod(ports)];
            (service_name(name), Arc::new(ServiceState { frontends, endpoints, ..ServiceState::default() }))
        };
        State { services: services.iter().map(service).collect(), ..State::default() }
    };
    // 81 goes from a to b, whose turn comes later.
    let operations = converge(&of(&[("shop/a", &[80, 81])]), &of(&[("shop/a", &[80, 82]), ("shop/b", &[81])]));
    let Some(Operation::PutService(_, first)) = operations.first() else { panic!("{operations:?}") };
    assert_eq!(first.frontends.len(), 3);
    assert_eq!(first.endpoints, [pod(&[80, 81, 82])]);
}
