//! Servers with their clients in the same guest.

use supermachine_tests::Guest;

fn redis(vcpus: u32) {
    let mut guest = Guest::boot("redis", vcpus, 512);
    guest.shell(
        "redis",
        include_str!("../programs/redis.sh"),
        include_str!("../programs/redis.out"),
    );
    guest.finish();
}

fn nginx(vcpus: u32) {
    let mut guest = Guest::boot("nginx", vcpus, 512);
    guest.shell(
        "nginx",
        include_str!("../programs/nginx.sh"),
        include_str!("../programs/nginx.out"),
    );
    guest.finish();
}

#[test]
fn redis_answers_and_keeps_its_data() {
    redis(1);
}

#[test]
fn redis_answers_and_keeps_its_data_on_four_vcpus() {
    redis(4);
}

#[test]
fn nginx_serves_curl() {
    nginx(1);
}

#[test]
fn nginx_serves_curl_on_four_vcpus() {
    nginx(4);
}
