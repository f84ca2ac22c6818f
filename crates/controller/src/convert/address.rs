use std::net::{IpAddr, Ipv4Addr};

use super::Report;

/// What is asked of an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A unicast address in canonical form (RFC 5952): what people write in a VirtualService.
    Canonical,
    /// A unicast address, however written: what other controllers write.
    Any,
}

/// Reads an address; what is wrong with it goes into the report.
pub(super) fn parse(text: &str, form: Form, field: &str, report: &mut Report<'_>) -> Option<IpAddr> {
    let address: IpAddr = match text.parse() {
        Ok(address) => address,
        Err(_) => {
            report.invalid(field, format!("`{text}` is no IP address; {}", cure(text)));
            return None;
        }
    };
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        report.invalid(field, format!("`{text}` is an IPv4-mapped IPv6 address; write {v4}"));
        return None;
    }
    if form == Form::Canonical && address.to_string() != text {
        report.invalid(field, format!("`{text}` is not in canonical form (RFC 5952); write {address}"));
        return None;
    }
    if let Some(kind) = no_global_unicast(address) {
        report.invalid(
            field,
            format!("{address} is {kind}; write a unicast address that other machines can reach, such as 203.0.113.10"),
        );
        return None;
    }
    Some(address)
}

fn cure(text: &str) -> String {
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return format!("leave out the zone `%{zone}`");
    }
    if let Some((address, length)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        return format!("write {address}, without `/{length}`");
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && let Ok(address) = inner.parse::<IpAddr>()
    {
        return format!("write {address}, without brackets");
    }
    if text.trim() != text && text.trim().parse::<IpAddr>().is_ok() {
        return format!("write {}, without spaces", text.trim());
    }
    let octets: Vec<_> = text.split('.').collect();
    if octets.len() == 4
        && let Ok(octets) = octets.iter().map(|octet| octet.parse::<u8>()).collect::<Result<Vec<_>, _>>()
        && let [a, b, c, d] = octets[..]
    {
        return format!("write {}, without leading zeros", Ipv4Addr::new(a, b, c, d));
    }
    "write one such as 203.0.113.10 or 2001:db8::10".to_owned()
}

/// What the address is, if it is not a unicast one that is valid beyond a link (the rule of Go's
/// `IsGlobalUnicast`, which the CRD's `isGlobalUnicast` follows).
fn no_global_unicast(address: IpAddr) -> Option<&'static str> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_unspecified() {
        Some("the unspecified address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if link_local {
        Some("a link-local address")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast address")
    } else {
        None
    }
}
