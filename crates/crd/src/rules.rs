//! What a schema's bounds cannot say, as CEL rules with messages that say what to write instead.

use schemars::Schema;
use serde_json::{Value, json};

/// Of a field that holds one address.
pub(crate) fn address() -> Value {
    json!([
        {"rule": "isIP(self)", "message": "must be an IPv4 or IPv6 address"},
        {
            "rule": "!isIP(self) || ip.isCanonical(self)",
            "message": "must be in canonical form (RFC 5952; for example 2001:db8::1, not 2001:DB8:0::1)",
        },
        {
            "rule": "!isIP(self) || ip(self).isGlobalUnicast()",
            "message": "must be a unicast address, not unspecified, loopback, link-local, multicast or broadcast",
        },
    ])
}

/// The same of each item of a list.
pub(crate) fn of_each_address(list: &mut Schema) {
    if let Some(items) = list.get_mut("items").and_then(Value::as_object_mut) {
        items.insert("x-kubernetes-validations".to_owned(), address());
    }
}

/// Of the list of ports.
pub(crate) fn ports() -> Value {
    json!([{
        "rule": "self.all(p, !has(p.name) || self.exists_one(q, has(q.name) && q.name == p.name))",
        "message": "port names must be unique",
    }])
}

/// Of a VirtualService's spec.
pub(crate) fn spec() -> Value {
    json!([{
        "rule": "has(self.backendRefs) != has(self.endpoints)",
        "message": "set exactly one of backendRefs and endpoints",
    }])
}

/// Of a VirtualService itself. Rules may ask no more of metadata than the name.
pub(crate) fn name() -> Value {
    json!([{
        "rule": format!("self.metadata.name.size() <= {}", crate::MAX_NAME),
        "message": format!("metadata.name must have at most {} characters", crate::MAX_NAME),
    }])
}

/// The status of an object that nobody has looked at yet.
pub(crate) fn pending() -> Value {
    let condition = |name: &str, status: &str| {
        json!({
            "type": name,
            "status": status,
            "reason": "Pending",
            "message": "Waiting for the Guenon controller",
            "lastTransitionTime": crate::NEVER,
        })
    };
    json!({"conditions": [
        condition(crate::conditions::ACCEPTED, "Unknown"),
        condition(crate::conditions::PROGRAMMED, "Unknown"),
        condition(crate::conditions::RESOLVED_REFS, "Unknown"),
        condition(crate::conditions::READY, "False"),
    ]})
}
