//! The machine's power button: QEMU's `system_powerdown` presses it.
//!
//! The kernel's `button` driver tells of it over generic netlink (drivers/acpi/event.c), whatever
//! the image has: neither logind nor evdev is needed.

use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_GENERIC;

use crate::guest::console::say;
use crate::guest::error::{Doing, GuestError, chain};

/// `NLM_F_REQUEST` (linux/netlink.h).
const REQUEST: u16 = 1;
/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes (linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_NAME: u16 = 2;
const GROUPS: u16 = 7;
const GROUP_ID: u16 = 2;
/// `ACPI_GENL_ATTR_EVENT`: a `struct acpi_genl_event`, which begins with the class of the device.
const ATTRIBUTE_EVENT: u16 = 1;
const POWER_BUTTON: &[u8] = b"button/power";

/// Bytes of `struct nlmsghdr` and `struct genlmsghdr`.
const HEADERS: usize = 16 + 4;

/// Calls `pressed` at each press, for ever. Ends quietly on a kernel without ACPI.
pub fn watch(pressed: impl Fn()) {
    if let Err(error) = listen(pressed) {
        say(&format!("no power button: {}", chain(&error)));
    }
}

fn listen(pressed: impl Fn()) -> Result<(), GuestError> {
    let mut socket = Socket::new(NETLINK_GENERIC).doing(|| "open generic netlink".into())?;
    socket.bind_auto().doing(|| "bind generic netlink".into())?;
    socket.send(&family_request(), 0).doing(|| "ask for ACPI's events".into())?;
    let (reply, _) = socket.recv_from_full().doing(|| "ask for ACPI's events".into())?;
    let Some(group) = group_of(&reply) else { return Ok(()) };
    socket.add_membership(group).doing(|| "join ACPI's events".into())?;
    loop {
        let (message, _) = socket.recv_from_full().doing(|| "wait for ACPI's events".into())?;
        if is_power_button(&message) {
            say("the power button was pressed");
            pressed();
        }
    }
}

fn family_request() -> Vec<u8> {
    let name = b"acpi_event\0";
    let mut attribute = attribute(FAMILY_NAME, name);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    let length = (HEADERS + attribute.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(CONTROLLER.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence and port: one question, one answer.
    message.extend([0; 8]);
    message.extend([GET_FAMILY, 1, 0, 0]);
    message.extend(attribute);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

/// The number of the family's only multicast group.
fn group_of(message: &[u8]) -> Option<u32> {
    if u16::from_ne_bytes(*message.get(4..)?.first_chunk()?) != CONTROLLER {
        return None;
    }
    let groups = find(message.get(HEADERS..)?, GROUPS)?;
    let (_, first, _) = next_attribute(groups)?;
    Some(u32::from_ne_bytes(*find(first, GROUP_ID)?.first_chunk()?))
}

fn is_power_button(message: &[u8]) -> bool {
    let event = message.get(HEADERS..).and_then(|attributes| find(attributes, ATTRIBUTE_EVENT));
    event.is_some_and(|e| e.starts_with(POWER_BUTTON))
}

/// The value of the first attribute of `kind`.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (kind, value, rest) = next_attribute(attributes)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = rest;
    }
}

/// Kind, value, and what follows (netlink(7): length with header, kind, value, padded to 4).
fn next_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    // The upper two bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
    let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
    let value = bytes.get(4..length)?;
    Some((kind, value, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(class: &[u8]) -> Vec<u8> {
        let mut body = class.to_vec();
        body.resize(20 + 15 + 1 + 8, 0);
        [vec![0; HEADERS], attribute(ATTRIBUTE_EVENT, &body)].concat()
    }

    #[test]
    fn only_the_power_button_is_the_power_button() {
        assert!(is_power_button(&event(b"button/power")));
        assert!(!is_power_button(&event(b"ac_adapter")));
        let whole = event(b"button/power");
        for cut in 0..whole.len() {
            assert!(!is_power_button(&whole[..cut]), "{cut}");
        }
    }

    #[test]
    fn the_group_is_found_behind_other_attributes() {
        let group = [attribute(GROUP_ID, &7u32.to_ne_bytes()), attribute(1, b"acpi_mc_group\0")].concat();
        let groups = attribute(GROUPS, &attribute(1, &group));
        let mut header = vec![0; HEADERS];
        header[4] = CONTROLLER as u8;
        let message = [header, attribute(1, &[9, 9, 0, 0]), groups].concat();
        assert_eq!(group_of(&message), Some(7));
        for cut in 0..message.len() {
            let _ = group_of(&message[..cut]);
        }
        assert_eq!(group_of(&[]), None);
    }
}
