//! Requests of guests on their way to the hosts of their secrets: however they arrive, what goes out is one request
//! for that host, and a body ends at the same place.
#![no_main]

use banger::model::secret::{Placeholder, SecretHost, SecretValue};
use banger::net::http::{self, Body, Swap};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let host: SecretHost = "api.example".parse().expect("a host");
    let value = SecretValue::new(&"A".parse().expect("a name"), "s3cret".to_owned()).expect("a value");
    let swaps = [Swap { placeholder: Placeholder::from_random(1), value }];
    let Ok(Some(length)) = http::head_length(bytes) else { return };
    let Ok(out) = http::outgoing(&bytes[..length], &host, &swaps) else { return };
    let again = http::head_length(&out.bytes).expect("what goes out is a head");
    assert_eq!(again, Some(out.bytes.len()), "more than a head goes out");
    let twice = http::outgoing(&out.bytes, &host, &swaps).expect("it is for that host");
    assert_eq!((twice.swapped, &twice.body), (0, &out.body));
    if let Body::Chunked(whole) = out.body {
        let rest = &bytes[length..];
        let (mut at_once, mut in_steps) = (whole.clone(), whole);
        let taken = at_once.take(rest);
        let mut sum = Ok(0);
        for byte in rest {
            match (&mut sum, in_steps.take(std::slice::from_ref(byte))) {
                (Ok(sum), Ok(count)) => *sum += count,
                (_, Err(e)) => {
                    sum = Err(e);
                    break;
                }
                (Err(_), _) => break,
            }
        }
        assert_eq!(taken.ok(), sum.ok(), "a body ends elsewhere when it arrives in pieces");
    }
});
