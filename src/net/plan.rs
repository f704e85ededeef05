//! Which /24 the bridge gets: one that meets no route of the host.

use std::net::Ipv4Addr;

use crate::model::Subnet;

/// No network can be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The wish meets a route.
    #[error("network {subnet} meets the host's route to {route}/{prefix}")]
    Meets {
        /// What was wished for.
        subnet: Subnet,
        /// The route's destination.
        route: Ipv4Addr,
        /// Its prefix.
        prefix: u8,
    },
    /// All candidates meet a route.
    #[error("every private network that was tried meets a route of the host")]
    NoneFree,
}

/// First and last /24 of each range that is tried, in order. They lie where few others look first:
/// home routers use 192.168.0-2, container engines 172.17 upwards, companies the low parts of 10.
const CANDIDATES: [([u8; 3], [u8; 3]); 3] =
    [([172, 30, 0], [172, 30, 255]), ([10, 213, 0], [10, 213, 255]), ([192, 168, 213], [192, 168, 251])];

/// `preferred` if it meets no route, an error if it does; without a wish the first candidate that
/// meets none. `routes` are destinations with their prefix; the default route does not count.
pub fn choose_subnet(preferred: Option<Subnet>, routes: &[(Ipv4Addr, u8)]) -> Result<Subnet, PlanError> {
    match preferred {
        Some(subnet) => match subnet.first_met(routes) {
            Some((route, prefix)) => Err(PlanError::Meets { subnet, route, prefix }),
            None => Ok(subnet),
        },
        None => candidates().find(|s| s.first_met(routes).is_none()).ok_or(PlanError::NoneFree),
    }
}

fn candidates() -> impl Iterator<Item = Subnet> {
    CANDIDATES
        .iter()
        .flat_map(|(first, last)| (first[2]..=last[2]).map(|third| Ipv4Addr::new(first[0], first[1], third, 0)))
        .filter_map(Subnet::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> (Ipv4Addr, u8) {
        let (address, prefix) = text.split_once('/').expect("a prefix");
        (address.parse().expect("an address"), prefix.parse().expect("a number"))
    }

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a subnet")
    }

    #[test]
    fn the_first_free_candidate_is_taken() {
        assert_eq!(choose_subnet(None, &[]), Ok(subnet("172.30.0.0/24")));
        let taken = [route("0.0.0.0/0"), route("172.30.0.0/24"), route("172.30.1.128/25"), route("172.30.2.7/32")];
        assert_eq!(choose_subnet(None, &taken), Ok(subnet("172.30.3.0/24")));
        assert_eq!(choose_subnet(None, &[route("172.16.0.0/12")]), Ok(subnet("10.213.0.0/24")));
        let wide = [route("172.16.0.0/12"), route("10.0.0.0/8")];
        assert_eq!(choose_subnet(None, &wide), Ok(subnet("192.168.213.0/24")));
    }

    #[test]
    fn the_default_route_and_its_halves_do_not_count() {
        let routes = [route("0.0.0.0/0"), route("0.0.0.0/1"), route("128.0.0.0/1")];
        assert_eq!(choose_subnet(None, &routes), Ok(subnet("172.30.0.0/24")));
    }

    #[test]
    fn a_wish_that_meets_a_route_is_refused_naming_it() {
        let wish = Some(subnet("10.1.2.0/24"));
        assert_eq!(choose_subnet(wish, &[route("10.1.3.0/24")]), Ok(subnet("10.1.2.0/24")));
        let error = choose_subnet(wish, &[route("10.0.0.0/8")]).expect_err("refused");
        assert_eq!(error.to_string(), "network 10.1.2.0/24 meets the host's route to 10.0.0.0/8");
    }

    #[test]
    fn a_host_that_routes_everything_private_leaves_nothing() {
        let routes = [route("10.0.0.0/8"), route("172.16.0.0/12"), route("192.168.0.0/16")];
        assert_eq!(choose_subnet(None, &routes), Err(PlanError::NoneFree));
    }
}
