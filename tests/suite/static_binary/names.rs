//! A name server that knows every name below `test`, except for those that only `/etc/hosts` may know.

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    sync::{Arc, Mutex},
    thread,
};

/// Not the address of a resolver that the machine may run itself.
pub const ADDRESS: &str = "127.53.0.1";

pub struct NameServer(Arc<Mutex<BTreeSet<String>>>);

impl NameServer {
    pub fn start() -> Self {
        let socket = UdpSocket::bind((ADDRESS, 53)).unwrap_or_else(|error| {
            panic!("cannot listen on port 53 of {ADDRESS}: {error}. Run it as root")
        });
        let asked = Arc::new(Mutex::new(BTreeSet::new()));
        let seen = Arc::clone(&asked);
        // It ends with the process.
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let (name, answer) = answer(&buffer[..length]);
                seen.lock().unwrap().insert(name);
                let _ = socket.send_to(&answer, from);
            }
        });
        Self(asked)
    }

    /// The names that were asked for.
    pub fn asked(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The name of a query with one question, and its answer: 127.0.0.1 for IPv4, and no address for IPv6.
fn answer(query: &[u8]) -> (String, Vec<u8>) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    let end = at + 5;
    let is_ipv4 = query[at + 1..at + 3] == [0, 1];
    let mut answer = query[..2].to_vec();
    // A response without an error, with one question and at most one answer.
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_ipv4 {
        // The name of the question, an address (A, IN), valid for a second.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    (labels.join("."), answer)
}
