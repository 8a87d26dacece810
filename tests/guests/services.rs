//! Services as the workloads of their images. The large ones are those of `cargo xtask
//! services`.

use supermachine_tests::required;
use supermachine_tests::services::{Client, PAGE, SERVICES, check};

fn answers(name: &str, client: &Client) {
    let service = SERVICES.iter().find(|service| service.name == name);
    let layout = required(&format!("guest-images/{name}"), "cargo xtask images");
    let service = service.expect("a service of that name");
    check(service, &layout, client).unwrap_or_else(|reason| panic!("{name}: {reason}"));
}

#[test]
fn nginx_is_captured_when_it_listens_and_its_copy_answers_at_once() {
    answers("nginx", &PAGE);
}

#[test]
fn redis_is_captured_when_it_listens_and_its_copy_answers_at_once() {
    let client = Client::Bytes {
        question: "SET key value\r\nGET key\r\nINCRBY n 42\r\n",
        answer: "+OK\r\n$5\r\nvalue\r\n:42\r\n",
    };
    answers("redis", &client);
}
