//! To which interfaces the program is to be attached now, and when a refused attachment is tried again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::{NodeView, Place, Problem, ProblemReason};

/// First wait before an attachment that was refused is tried again; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: an interface that was freed by somebody else is taken within it.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The interfaces that the program belongs on.
#[derive(Debug)]
pub(super) struct Attachments {
    interfaces: BTreeMap<String, Attachment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Attachment {
    /// Not looked at yet, or just come.
    Waiting,
    /// Not there.
    Away,
    /// Attached to the device of this index.
    Attached(u32),
    /// Refused on the device of this index.
    Refused { ifindex: u32, why: String, retry: Instant, wait: Duration },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    /// Attach to this interface, the device of this index.
    Attach(String, u32),
    /// Note that this interface is gone.
    Forget(String),
}

impl Attachments {
    /// None is attached yet.
    pub(super) fn new(interfaces: &[String]) -> Self {
        Self { interfaces: interfaces.iter().map(|name| (name.clone(), Attachment::Waiting)).collect() }
    }

    /// Whether the program belongs on this interface.
    pub(super) fn wants(&self, interface: &str) -> bool {
        self.interfaces.contains_key(interface)
    }

    /// What is to be done on a node with this view.
    pub(super) fn due(&mut self, view: &NodeView, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        for (name, attachment) in &mut self.interfaces {
            let present = view.interfaces.iter().find(|interface| interface.name == *name).map(|found| found.index);
            let is_due = match (&*attachment, present) {
                (Attachment::Away, None) => false,
                (Attachment::Waiting | Attachment::Attached(_) | Attachment::Refused { .. }, None) => {
                    *attachment = Attachment::Away;
                    actions.push(Action::Forget(name.clone()));
                    false
                }
                (Attachment::Waiting | Attachment::Away, Some(_)) => true,
                (Attachment::Attached(index), Some(present)) => *index != present,
                (Attachment::Refused { ifindex, retry, .. }, Some(present)) => *ifindex != present || *retry <= now,
            };
            if let Some(index) = present.filter(|_| is_due) {
                actions.push(Action::Attach(name.clone(), index));
            }
        }
        actions
    }

    /// The program is attached.
    pub(super) fn attached(&mut self, interface: &str, ifindex: u32) {
        self.interfaces.insert(interface.to_owned(), Attachment::Attached(ifindex));
    }

    /// It could not be.
    pub(super) fn refused(&mut self, interface: &str, ifindex: u32, why: String, now: Instant) {
        let wait = match self.interfaces.get(interface) {
            Some(Attachment::Refused { ifindex: same, wait, .. }) if *same == ifindex => (*wait * 2).min(LONGEST_WAIT),
            Some(_) | None => FIRST_WAIT,
        };
        let refused = Attachment::Refused { ifindex, why, retry: now + wait, wait };
        self.interfaces.insert(interface.to_owned(), refused);
    }

    /// When a refused one is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        let retries = self.interfaces.values().filter_map(|attachment| match attachment {
            Attachment::Refused { retry, .. } => Some(*retry),
            Attachment::Waiting | Attachment::Away | Attachment::Attached(_) => None,
        });
        retries.min()
    }

    /// Interfaces without the program.
    pub(super) fn missing(&self) -> impl Iterator<Item = &str> {
        let missing = |attachment: &Attachment| !matches!(attachment, Attachment::Attached(_));
        self.interfaces.iter().filter(move |(_, attachment)| missing(attachment)).map(|(name, _)| name.as_str())
    }

    /// For people.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let problem = |(name, attachment): (&String, &Attachment)| {
            let message = match attachment {
                Attachment::Waiting | Attachment::Attached(_) => return None,
                Attachment::Away => {
                    "is not there: the program is attached as soon as it is (see `ip link`; --interface names it)"
                        .into()
                }
                Attachment::Refused { why, .. } => format!("{why}; it is tried again from time to time"),
            };
            let place = Place { object: format!("interface {name}"), ..Place::default() };
            Some(Problem { reason: ProblemReason::Interface, place, message })
        };
        self.interfaces.iter().filter_map(problem).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InterfaceView;

    fn view(interfaces: &[(&str, u32)]) -> NodeView {
        let interface = |(name, index): &(&str, u32)| InterfaceView {
            name: (*name).to_owned(),
            index: *index,
            mac: None,
            mtu: 1500,
            addresses: vec![],
            parent: None,
            vlan: None,
            far_end: None,
        };
        NodeView {
            node: "n".into(),
            roles: vec![],
            tunnel: vec![],
            interfaces: interfaces.iter().map(interface).collect(),
            next_hops: vec![],
            attached: vec![],
        }
    }

    fn attach(name: &str, index: u32) -> Action {
        Action::Attach(name.into(), index)
    }

    #[test]
    fn an_interface_that_goes_and_comes_back_is_attached_again() {
        let (mut all, now) = (Attachments::new(&["eth0".into()]), Instant::now());
        assert_eq!(all.due(&view(&[("lo", 1), ("eth0", 2)]), now), [attach("eth0", 2)]);
        all.attached("eth0", 2);
        assert_eq!(all.due(&view(&[("eth0", 2)]), now), []);
        assert_eq!((all.missing().count(), all.problems().len()), (0, 0));

        assert_eq!(all.due(&view(&[("lo", 1)]), now), [Action::Forget("eth0".into())]);
        assert_eq!(all.due(&view(&[("lo", 1)]), now), []);
        assert_eq!(all.missing().collect::<Vec<_>>(), ["eth0"]);
        assert!(all.problems()[0].to_string().contains("interface eth0"), "{}", all.problems()[0]);
        assert_eq!(all.due(&view(&[("eth0", 7)]), now), [attach("eth0", 7)]);
        all.attached("eth0", 7);
        // Replaced between two views.
        assert_eq!(all.due(&view(&[("eth0", 9)]), now), [attach("eth0", 9)]);
    }

    #[test]
    fn a_refused_attachment_is_tried_again_ever_more_rarely() {
        let (mut all, mut now) = (Attachments::new(&["eth0".into()]), Instant::now());
        let present = view(&[("eth0", 2)]);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(all.due(&present, now), [attach("eth0", 2)]);
            all.refused("eth0", 2, "taken by program 5".into(), now);
            assert_eq!(all.due(&present, now), []);
            let next = all.next().expect("a retry");
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert!(all.problems()[0].message.contains("taken by program 5"));
        assert_eq!(all.due(&view(&[("eth0", 3)]), now - Duration::from_secs(1)), [attach("eth0", 3)], "a new device");
    }
}
