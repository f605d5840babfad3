//! What an order says of its guests: who may come, how many, who is told what, and that nothing is left of them.

use super::*;

const BROWSER: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html\r\n\r\n";

#[tokio::test]
async fn a_browser_that_waits_is_told_and_a_program_goes_on_waiting() {
    let bench = Bench::with(vec![], |s| s.locale = crate::i18n::Locale::En).await;
    let (mut browser, mut program) = (bench.dial().await, bench.dial().await);
    browser.write_all(BROWSER).await.unwrap();
    program.write_all(GET).await.unwrap();
    let page = rest(&mut browser).await.unwrap();
    assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("ns/svc"), "{page}");
    bench.until(|s| s.live.load(Relaxed) == 1 && s.pages.load(Relaxed) == 1).await;
    let good = pod("good", |stream| answer(stream, "good")).await;
    bench.pods(vec![good]);
    assert_eq!(rest(&mut program).await, Ok("good".to_owned()));
    assert_eq!(bench.shared.stats.failed.load(Relaxed), 0);
}

#[tokio::test]
async fn without_the_page_a_browser_waits_like_everybody() {
    let bench = Bench::with(vec![], |s| {
        s.wait_page = false;
        s.limits.patience_seconds = 3;
    })
    .await;
    let mut browser = bench.dial().await;
    browser.write_all(BROWSER).await.unwrap();
    assert_eq!(rest(&mut browser).await, Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let good = pod("good", |stream| answer(stream, "good")).await;
    let bench = Bench::with(vec![good], |s| s.allow = vec!["192.0.2.0/24".parse().unwrap()]).await;
    let end = match TcpStream::connect(bench.address).await {
        Ok(mut stranger) => rest(&mut stranger).await,
        Err(error) => Err(error.kind()),
    };
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    bench.until(|s| s.refused.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn the_pod_is_told_the_clients_address_before_the_first_byte() {
    let echo = pod("echo", |mut stream: TcpStream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    })
    .await;
    // A second attempt begins with the header too.
    let bench = Bench::with(vec![refusing("bad").await, echo], |s| s.proxy_protocol = true).await;
    for _ in 0..10 {
        let mut client = bench.dial().await;
        let header = proxy_protocol::header(client.local_addr().unwrap(), bench.address);
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        timeout(LIMIT, client.read_to_end(&mut all)).await.unwrap().unwrap();
        assert_eq!(all, [&header[..], b"hello"].concat());
    }
}

#[tokio::test]
async fn who_never_says_a_word_is_shown_out_and_who_did_may_be_silent() {
    let silent = pod("silent", |stream: TcpStream| async move {
        let _stream = stream;
        std::future::pending().await
    })
    .await;
    let bench = Bench::with(vec![silent], |s| s.limits.first_byte_seconds = 1).await;
    let (mut mute, mut client) = (bench.dial().await, bench.dial().await);
    client.write_all(b"x").await.unwrap();
    assert_eq!(rest(&mut mute).await, Err(ErrorKind::ConnectionReset));
    bench.until(|s| s.live.load(Relaxed) == 1).await;
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(500), client.read(&mut byte)).await.is_err());
}

#[tokio::test]
async fn an_answer_before_the_whole_question_is_not_lost() {
    // Like a server that refuses a large body: answers, closes, and never reads on.
    let refuses = pod("refuses", |mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        stream.write_all(b"413").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let bench = Bench::new(vec![refuses]).await;
    let (mut reader, mut writer) = bench.dial().await.into_split();
    writer.write_all(POST).await.unwrap();
    let mut got = Vec::new();
    timeout(LIMIT, reader.read_to_end(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, b"413");
    writer.write_all(&[0; 100_000]).await.unwrap();
    drop(writer);
    bench.until(|s| s.live.load(Relaxed) == 0).await;
    assert_eq!(bench.shared.stats.failed.load(Relaxed), 0);
}

/// What this process holds in memory.
#[cfg(target_os = "linux")]
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Connections of every kind of end: nothing is left of them in the books, and memory does not grow with their number.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_leave_nothing_behind() {
    const ROUND: usize = 1_500;
    let good = pod("good", |stream| answer(stream, "good")).await;
    let breaking = pod("breaking", |mut stream: TcpStream| async move {
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).await;
        let _ = stream.write_all(b"x").await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let bench = Bench::new(vec![good, breaking]).await;
    let round = async || {
        for turn in 0..ROUND {
            let mut client = bench.dial().await;
            match turn % 3 {
                0 => client.set_zero_linger().unwrap(),
                1 => {
                    client.write_all(GET).await.unwrap();
                    let _ = rest(&mut client).await;
                }
                _ => {
                    client.write_all(GET).await.unwrap();
                    client.shutdown().await.unwrap();
                    let _ = rest(&mut client).await;
                }
            }
        }
        bench.until(|s| s.live.load(Relaxed) == 0).await;
    };
    // Pools and tables have their size after the first rounds.
    round().await;
    round().await;
    let before = resident_kib();
    for _ in 0..4 {
        round().await;
    }
    let grown = resident_kib().saturating_sub(before);
    // A leak of one buffer in a hundred connections would be larger; other tests of this process run beside this one.
    assert!(grown < 64 * 1024, "{grown} KiB more after {} connections", 4 * ROUND);
    let stats = &bench.shared.stats;
    assert_eq!((stats.live.load(Relaxed), stats.parked.load(Relaxed)), (0, 0));
    let set = bench.shared.endpoints.borrow().pair(0);
    assert_eq!(set.iter().map(|e| lock(&bench.shared.balancer).live(e)).sum::<u64>(), 0);
}
