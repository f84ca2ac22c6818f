use super::*;
use crate::fixtures::{node, service, virtual_service};
use crate::model::ServiceName;

const KINDS: [Kind; 5] = Kind::ALL;

fn seen(object: impl Into<Object>) -> Seen {
    let object = object.into();
    Seen { key: object.key(), object: Some(object), problems: Vec::new(), version: 1 }
}

fn web() -> Object {
    virtual_service("shop/web").vip("203.0.113.10").tcp(80).endpoint("10.0.0.7").into()
}

fn unusable(message: &str) -> Seen {
    let problem = Problem { reason: ProblemReason::Invalid, place: Place::default(), message: message.to_owned() };
    Seen { key: web().key(), object: None, problems: vec![problem], version: 1 }
}

/// Every kind is listed, with these objects of its own.
fn list(gather: &mut Gather, objects: &[(Kind, Object)]) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    for kind in KINDS {
        events.extend(gather.take(News::ListBegins(kind)));
        for (_, object) in objects.iter().filter(|(of, _)| *of == kind) {
            events.extend(gather.take(News::Listed(kind, seen(object.clone()))));
        }
        events.extend(gather.take(News::ListEnds(kind)));
    }
    events
}

#[test]
fn objects_are_told_once_all_kinds_have_been_listed() {
    let mut gather = Gather::default();
    let zoo = service("shop/zoo", &[("http", 80)]);
    for kind in KINDS {
        assert_eq!(gather.take(News::ListBegins(kind)), []);
    }
    assert_eq!(gather.take(News::Listed(Kind::VirtualService, seen(web()))), []);
    for kind in &KINDS[..4] {
        assert_eq!(gather.take(News::ListEnds(*kind)), []);
    }
    assert_eq!(gather.take(News::Applied(Kind::Service, seen(zoo.clone()))), [], "nodes are not known yet");
    assert_eq!(gather.take(News::ListEnds(Kind::Node)), [SourceEvent::Reset(vec![web(), zoo])]);
}

#[test]
fn what_a_new_list_does_not_hold_is_deleted() {
    let mut gather = Gather::default();
    let (zoo, away) = (service("shop/zoo", &[("http", 80)]), service("shop/away", &[("http", 80)]));
    list(
        &mut gather,
        &[(Kind::Service, zoo.clone()), (Kind::Service, away.clone()), (Kind::Node, node("n1", &["10.0.0.1"]))],
    );
    gather.take(News::ListBegins(Kind::Service));
    assert_eq!(gather.take(News::Listed(Kind::Service, seen(zoo.clone()))), [SourceEvent::Apply(zoo)]);
    assert_eq!(gather.take(News::ListEnds(Kind::Service)), [SourceEvent::Delete(away.key())]);
}

#[test]
fn a_list_that_is_cut_off_deletes_nothing() {
    let mut gather = Gather::default();
    let zoo = service("shop/zoo", &[("http", 80)]);
    list(&mut gather, &[(Kind::Service, zoo.clone())]);
    gather.take(News::ListBegins(Kind::Service));
    gather.take(News::Failed(Kind::Service, "connection reset".to_owned()));
    gather.take(News::ListBegins(Kind::Service));
    gather.take(News::Listed(Kind::Service, seen(zoo)));
    let events = gather.take(News::ListEnds(Kind::Service));
    assert!(events.iter().all(|event| matches!(event, SourceEvent::Problems { problems, .. } if problems.is_empty())));
}

#[test]
fn changes_and_deletions_are_told_once() {
    let mut gather = Gather::default();
    list(&mut gather, &[]);
    let zoo = service("shop/zoo", &[("http", 80)]);
    assert_eq!(gather.take(News::Applied(Kind::Service, seen(zoo.clone()))), [SourceEvent::Apply(zoo.clone())]);
    assert_eq!(gather.take(News::Deleted(Kind::Service, zoo.key())), [SourceEvent::Delete(zoo.key())]);
    assert_eq!(gather.take(News::Deleted(Kind::Service, zoo.key())), [], "it is gone already");
}

#[test]
fn an_object_that_is_spoilt_is_named_and_keeps_its_last_good_version() {
    let mut gather = Gather::default();
    list(&mut gather, &[(Kind::VirtualService, web())]);
    let place = "VirtualService shop/web".to_owned();
    let Seen { problems, .. } = unusable("no");
    let named = SourceEvent::Problems { place: place.clone(), problems };
    assert_eq!(gather.take(News::Applied(Kind::VirtualService, unusable("no"))), [named]);
    assert_eq!(gather.take(News::Applied(Kind::VirtualService, unusable("no"))), [], "said once");
    let mended = SourceEvent::Problems { place, problems: Vec::new() };
    let again = gather.take(News::Applied(Kind::VirtualService, seen(web())));
    assert_eq!(again, [mended.clone(), SourceEvent::Apply(web())]);
    gather.take(News::Applied(Kind::VirtualService, unusable("no")));
    let gone = gather.take(News::Deleted(Kind::VirtualService, web().key()));
    assert_eq!(gone, [mended, SourceEvent::Delete(web().key())]);
}

#[test]
fn an_unusable_object_that_a_new_list_does_not_hold_is_forgotten() {
    let mut gather = Gather::default();
    list(&mut gather, &[]);
    gather.take(News::Applied(Kind::VirtualService, unusable("no")));
    gather.take(News::ListBegins(Kind::VirtualService));
    let events = gather.take(News::ListEnds(Kind::VirtualService));
    assert_eq!(events, [SourceEvent::Problems { place: "VirtualService shop/web".to_owned(), problems: Vec::new() }]);
}

#[test]
fn an_object_that_is_no_longer_of_interest_is_deleted() {
    let mut gather = Gather::default();
    let zoo = service("shop/zoo", &[("http", 80)]);
    list(&mut gather, &[(Kind::Service, zoo.clone())]);
    let none = Seen { key: zoo.key(), object: None, problems: Vec::new(), version: 1 };
    assert_eq!(gather.take(News::Applied(Kind::Service, none)), [SourceEvent::Delete(zoo.key())]);
}

#[test]
fn a_server_that_fails_is_a_problem_until_it_answers() {
    let mut gather = Gather::default();
    let failed = |gather: &mut Gather| gather.take(News::Failed(Kind::Node, "cannot watch nodes: refused".to_owned()));
    let [SourceEvent::Problems { place, problems }] = &failed(&mut gather)[..] else { panic!("it is told") };
    assert_eq!((place.as_str(), problems[0].reason), ("the watch of nodes", ProblemReason::Source));
    assert!(problems[0].message.ends_with("what is in force stays until all objects are known"), "{problems:?}");
    assert_eq!(failed(&mut gather), [], "said once");
    let events = list(&mut gather, &[]);
    let mended = SourceEvent::Problems { place: place.clone(), problems: Vec::new() };
    assert_eq!(events, [mended, SourceEvent::Reset(Vec::new())]);
    let [SourceEvent::Problems { problems, .. }] = &failed(&mut gather)[..] else { panic!("it is told") };
    assert!(problems[0].message.ends_with("the last objects stay in force"), "{problems:?}");
}

#[test]
fn a_server_that_is_away_is_one_problem_however_many_watches_say_so() {
    let mut gather = Gather::default();
    list(&mut gather, &[]);
    let away = |gather: &mut Gather| gather.take(News::Away("cannot ask the API server: refused".to_owned()));
    assert_eq!(away(&mut gather).len(), 1);
    assert_eq!(away(&mut gather), [], "said once");
    let mended = SourceEvent::Problems { place: "the Kubernetes API".to_owned(), problems: Vec::new() };
    assert_eq!(gather.take(News::ListBegins(Kind::Node)), [], "it was asked, and has not answered yet");
    assert_eq!(gather.take(News::ListEnds(Kind::Node)), [mended]);
}

#[test]
fn an_object_deleted_before_all_is_known_is_not_told_of() {
    let mut gather = Gather::default();
    gather.take(News::ListBegins(Kind::VirtualService));
    gather.take(News::Listed(Kind::VirtualService, seen(web())));
    gather.take(News::ListEnds(Kind::VirtualService));
    gather.take(News::Deleted(Kind::VirtualService, ObjectKey::VirtualService(ServiceName::new("shop", "web"))));
    for kind in &KINDS[1..4] {
        gather.take(News::ListEnds(*kind));
    }
    assert_eq!(gather.take(News::ListEnds(Kind::Node)), [SourceEvent::Reset(Vec::new())]);
}

#[test]
fn what_is_reached_is_told_once_all_before_it_is() {
    let mut gather = Gather::default();
    gather.take(News::ListBegins(Kind::VirtualService));
    gather.take(News::Listed(Kind::VirtualService, Seen { version: 7, ..seen(web()) }));
    assert_eq!(gather.reached(), None, "the list goes on");
    gather.take(News::ListEnds(Kind::VirtualService));
    assert_eq!(gather.reached(), None, "other kinds are not known");
    for kind in &KINDS[1..] {
        gather.take(News::ListBegins(*kind));
        gather.take(News::ListEnds(*kind));
    }
    assert_eq!((gather.reached(), gather.reached()), (Some(7), None));
    gather.take(News::Applied(Kind::Service, Seen { version: 9, ..seen(service("shop/zoo", &[("http", 80)])) }));
    assert_eq!(gather.reached(), None, "of VirtualServices alone");
    gather.take(News::Applied(Kind::VirtualService, Seen { version: 8, ..unusable("no") }));
    assert_eq!(gather.reached(), Some(8), "an object that cannot be used is past, too");
}

#[test]
fn what_goes_with_its_definition_stays_until_it_is_let_go() {
    let mut gather = Gather::default();
    let away: Object = virtual_service("shop/away").vip("203.0.113.11").tcp(80).endpoint("10.0.0.7").into();
    list(&mut gather, &[(Kind::VirtualService, web()), (Kind::VirtualService, away.clone())]);
    gather.take(News::DefinitionGone("the definition is being deleted".to_owned()));
    assert_eq!(gather.take(News::Deleted(Kind::VirtualService, web().key())), []);
    assert!(!gather.holds_orphans(), "it is not there again yet");
    // It is there again, and holds nothing; the other was deleted while nobody looked.
    gather.take(News::ListBegins(Kind::VirtualService));
    let events = gather.take(News::ListEnds(Kind::VirtualService));
    let deleted =
        |events: &[SourceEvent]| events.iter().filter(|event| matches!(event, SourceEvent::Delete(_))).count();
    assert_eq!(deleted(&events), 0, "{events:?}");
    let told = |events: &[SourceEvent]| match events.last() {
        Some(SourceEvent::Problems { problems, .. }) => problems.first().map(|problem| problem.message.clone()),
        _ => None,
    };
    assert!(told(&events).is_some_and(|message| message.starts_with("2 VirtualServices")), "{events:?}");
    // One is applied again, one is not.
    let events = gather.take(News::Applied(Kind::VirtualService, seen(web())));
    assert!(events.contains(&SourceEvent::Apply(web())) && gather.holds_orphans(), "{events:?}");
    let events = gather.let_orphans_go();
    assert!(events.contains(&SourceEvent::Delete(away.key())), "{events:?}");
    assert_eq!((deleted(&events), gather.holds_orphans()), (1, false));
    // From now on a deletion is one.
    assert_eq!(deleted(&gather.take(News::Deleted(Kind::VirtualService, web().key()))), 1);
}
