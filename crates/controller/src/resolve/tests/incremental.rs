//! However it came to be, the state is that of the objects and the view alone.

use proptest::prelude::*;
use proptest::sample::select;

use super::{fed_at, t22};
use crate::fixtures::{node, service, slice, virtual_service};
use crate::model::{DeliveryChoice, NodeView, Object, ObjectKey};
use crate::plan::plan;
use crate::plan::tests::Model;

#[derive(Clone, Debug)]
enum Step {
    Apply(Object),
    Delete(ObjectKey),
    View(NodeView),
}

fn object() -> impl Strategy<Value = Object> {
    let names = select(vec!["shop/a", "shop/b", "infra/c"]);
    let vip = || select(vec!["203.0.113.10", "203.0.113.11", "2001:db8::10", "172.17.3.3"]);
    let port = || select(vec![80, 443]);
    let endpoint = || select(vec!["172.17.2.2", "172.17.3.3", "172.17.4.4", "10.1.0.7", "198.51.100.1"]);
    let given =
        (names.clone(), vip(), vip(), port(), prop::collection::btree_set(endpoint(), 0..4), 0..3_i64, 0..3_u32)
            .prop_map(|(name, one, other, port, endpoints, created, weight)| {
                let mut builder = virtual_service(name).vip(one).tcp(port).created(created);
                if one != other {
                    builder = builder.vip(other);
                }
                if weight == 2 {
                    builder = builder.delivery(DeliveryChoice::Veth).client_ip().udp(53);
                }
                endpoints
                    .into_iter()
                    .fold(builder, |builder, endpoint| builder.endpoint_of_weight(endpoint, weight))
                    .into()
            });
    let refs = (names, vip(), vip(), port(), select(vec!["x", "y"]), 0..3_i64).prop_map(
        |(name, one, other, port, backend, created)| {
            let mut builder = virtual_service(name).vip(one).tcp(port).created(created).backend(backend, 1);
            if one != other {
                builder = builder.vip(other).backend("z", 2);
            }
            builder.into()
        },
    );
    let services = select(vec!["shop/x", "shop/y", "infra/x"]);
    let ports = select(vec![vec![("a", 80)], vec![("a", 80), ("b", 443)], vec![]]);
    let services = (services, ports).prop_map(|(name, ports)| service(name, &ports));
    let slices = (select(vec!["shop/1", "shop/2", "infra/1"]), select(vec!["x", "y"]), port(), endpoint(), endpoint());
    let slices = (slices, any::<bool>(), select(vec!["t22", "t33", ""])).prop_map(
        |((name, service, port, one, other), draining, node)| {
            let slice = slice(name, service, ("a", port)).ready(one, node);
            if draining { slice.draining(other, "t33").into() } else { slice.ready(other, "").of_endpoints().into() }
        },
    );
    let nodes = (select(vec!["t22", "t33"]), prop::collection::btree_set(endpoint(), 0..3))
        .prop_map(|(name, ips)| node(name, &ips.into_iter().collect::<Vec<_>>()));
    prop_oneof![3 => given, 3 => refs, 2 => services, 3 => slices, 1 => nodes]
}

fn view() -> impl Strategy<Value = NodeView> {
    let veth = || t22().interface("veth7", 7, &["203.0.113.10/32"]).far_end(crate::model::FarEnd::Ready);
    select(vec![
        t22().build(),
        t22().neighbour("172.17.2.7", "eth0", 7).build(),
        t22().interface("eth1", 3, &["172.17.4.4/24"]).route("172.17.3.0/24", "192.0.2.1", "eth1", 1400).build(),
        veth().on_link("10.1.0.7/32", "veth7").build(),
        veth().neighbour("10.1.0.7", "veth7", 7).build(),
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => object().prop_map(Step::Apply),
        2 => object().prop_map(|object| Step::Delete(object.key())),
        1 => view().prop_map(Step::View),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_state_reached_in_steps_is_that_of_a_restart_whatever_the_order(
        steps in prop::collection::vec(step(), 1..25),
        seed in any::<u64>(),
    ) {
        let mut fed = fed_at(t22().build(), Vec::new());
        let mut objects = std::collections::BTreeMap::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Apply(object) => {
                    objects.insert(object.key(), object.clone());
                    fed.index.apply(object);
                }
                Step::Delete(key) => {
                    objects.remove(&key);
                    fed.index.delete(&key);
                }
                Step::View(view) => fed.view = view,
            }
            let changed = fed.resolve();
            // A plan for what changed is a plan for everything.
            let operations = plan(fed.state(), &model.state, Some(&changed));
            prop_assert_eq!(&operations, &plan(fed.state(), &model.state, None));
            model.run(&operations, fed.state());
            prop_assert_eq!(&model.state, fed.state());
        }
        let mut shuffled: Vec<_> = objects.into_values().collect();
        shuffled.sort_by_key(|object| {
            use std::hash::{DefaultHasher, Hash, Hasher};
            let mut hasher = DefaultHasher::new();
            (seed, object.key().to_string()).hash(&mut hasher);
            hasher.finish()
        });
        let restarted = fed_at(fed.view.clone(), shuffled);
        prop_assert_eq!(restarted.state(), fed.state());
        prop_assert_eq!(restarted.problems(), fed.problems());
        prop_assert_eq!(restarted.needs(), fed.needs());
    }
}

#[test]
fn a_change_costs_what_it_changes() {
    let many = |i: usize| {
        let vip = format!("203.0.{}.{}", i / 250, i % 250 + 1);
        virtual_service(&format!("shop/s{i}")).vip(&vip).tcp(80).endpoint("172.17.3.3")
    };
    let mut fed = fed_at(t22().build(), (0..100).map(|i| many(i).into()).collect());
    let changed = fed.apply(many(7).endpoint("172.17.4.4"));
    assert_eq!(changed.services, [crate::fixtures::service_name("shop/s7")].into());
    let changed = fed.apply(many(7).endpoint("172.17.4.4").in_line(5));
    assert_eq!(changed, super::Changed::default(), "moved in its file, and otherwise as it was");
    let mut all: Vec<Object> = (0..100).map(|i| many(i).into()).collect();
    all.reverse();
    fed.index.reset(all);
    assert_eq!(fed.resolve().services.len(), 1, "a reset counts what differs");
}
