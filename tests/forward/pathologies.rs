//! What goes wrong between a client, a tunnel and an application: one table, each row through every way that leads to the
//! pod. kubectl's column is printed beside ours and not judged.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e::apiserver::apps::{self, ANSWER, App, GREETING, pattern};
use e2e::apiserver::{Api, Break, Refusal, Rung};

use super::clients::{self, Client, End, Seen, page};
use super::ways::{Running, Way, kubectl};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What goes wrong at the API server before the first connection of a row; the second goes without.
#[derive(Clone, Copy)]
enum Fault {
    None,
    /// A connection breaks after so many bytes of applications.
    Cut(usize, Break),
    /// Upgrades take so long.
    Delay(Duration),
    /// No upgrade: the pod is about to go.
    NoPod,
    /// No upgrade: no right.
    Forbidden,
    /// containerd 1.6 behind it, for both connections.
    OldRuntime,
}

/// What the client must see.
#[derive(Clone)]
enum Expect {
    /// These bytes, and the end that belongs to them.
    Whole(Vec<u8>, End),
    /// At most the beginning of these bytes, and RST.
    Broken(Vec<u8>),
    /// One of the two: a tunnel that was open before the fault may still carry it.
    True(Vec<u8>),
}

use Expect::{Broken, True, Whole};

impl Expect {
    fn is(&self, seen: &Seen) -> bool {
        match self {
            Whole(bytes, end) => seen.bytes == *bytes && seen.end == *end,
            True(bytes) => fin(bytes.clone()).is(seen) || Broken(bytes.clone()).is(seen),
            Broken(bytes) => bytes.starts_with(&seen.bytes) && seen.end == End::Reset,
        }
    }
}

struct Row {
    name: &'static str,
    client: Client,
    app: App,
    fault: Fault,
    first: Expect,
    second: Expect,
    ways: &'static [Way],
}

const ALL: &[Way] = &[Way::Direct, Way::Spdy, Way::Tunnelled, Way::Channel];
const TUNNELS: &[Way] = &[Way::Spdy, Way::Tunnelled, Way::Channel];
const SPDY: &[Way] = &[Way::Spdy, Way::Tunnelled];
const DIRECT: &[Way] = &[Way::Direct];
/// Those by which a client's end gets to the application while its answer still comes. v4 channels close both directions
/// at once: an application that ends only after its client does not end there.
const ENDING: &[Way] = &[Way::Direct, Way::Spdy, Way::Tunnelled];
/// Those by which it shows how the application ended after its client.
const TRUE: &[Way] = &[Way::Direct, Way::Channel];

fn row(name: &'static str, client: Client, app: App, expect: Expect, ways: &'static [Way]) -> Row {
    Row { name, client, app, fault: Fault::None, first: expect.clone(), second: expect, ways }
}

impl Row {
    fn with(self, fault: Fault, first: Expect) -> Self {
        Self { fault, first, ..self }
    }
}

fn fin(bytes: Vec<u8>) -> Expect {
    Whole(bytes, End::Fin)
}

fn rows() -> Vec<Row> {
    let after = |millis| App::AnswersAfter(Duration::from_millis(millis));
    let answer = || fin(ANSWER.to_vec());
    let long = || pattern(0, 8 * MIB);
    let download = |name, client, ways| row(name, client, App::Download(8 * MIB), fin(long()), ways);
    vec![
        row("echo 1 MiB, client ends first", Client::Exchange(MIB), App::Echo, fin(pattern(0, MIB)), ENDING),
        row("echo byte by byte", Client::Trickle(300), App::Echo, fin(pattern(0, 300)), ENDING),
        download("download 8 MiB", Client::Ask, ALL),
        download("download after half-close", Client::AskAndEnd, ALL),
        row("upload 4 MiB", Client::Exchange(4 * MIB), App::Upload(4 * MIB), fin(b"ok".to_vec()), ALL),
        row("slow application", Client::Ask, App::Slow(3 * KIB), fin(pattern(0, 60 * KIB)), ALL),
        row("50 pages, kept alive", Client::Pages(50), App::Http, Whole(page().repeat(50), End::Own), ALL),
        row("application ends first", Client::Listen, App::EofFirst, fin(vec![]), ALL),
        row(
            "server speaks first",
            Client::ListenAndEnd(GREETING.len()),
            App::SpeaksFirst,
            fin(GREETING.to_vec()),
            ENDING,
        ),
        row("half-close, answer at once", Client::AskAndEnd, after(0), answer(), ALL),
        row("half-close, answer after 0.3 s", Client::AskAndEnd, after(300), answer(), ALL),
        row("half-close, answer after 1.5 s", Client::AskAndEnd, after(1500), answer(), ALL),
        row(
            "half-close, truncated answer",
            Client::AskAndEnd,
            App::StopsShort(100_000, Duration::from_millis(600)),
            Broken(pattern(0, 100_000)),
            TRUE,
        ),
        row("half-close, cut off", Client::AskAndEnd, App::Slow(3 * KIB), fin(pattern(0, 60 * KIB)), TUNNELS)
            .with(Fault::Cut(20 * KIB, Break::Fin), Broken(pattern(0, 60 * KIB))),
        // No way through the API server: containerd does not half-close (forwarders.md §0).
        row("answer only after the end", Client::AskAndEnd, App::AnswersOnEof, answer(), DIRECT),
        row("refused", Client::Ask, App::Refused, Broken(vec![]), ALL),
        row("refused, containerd 1.6", Client::Ask, App::Refused, Broken(vec![]), TUNNELS)
            .with(Fault::OldRuntime, Broken(vec![])),
        row("reset at once", Client::Ask, App::ResetAfter(0), Broken(vec![]), ALL),
        row("reset after 100 KB", Client::Ask, App::ResetAfter(100_000), Broken(pattern(0, 100_000)), ALL),
        row(
            "client resets in mid-download",
            Client::Leave(MIB),
            App::Download(8 * MIB),
            Whole(pattern(0, MIB), End::Own),
            ALL,
        ),
        row("stuck reader, 10 others", Client::Stuff, App::NeverReading, Whole(vec![], End::Own), ALL),
        download("killed in mid-download", Client::Ask, TUNNELS).with(Fault::Cut(3 * MIB, Break::Fin), Broken(long())),
        download("reset in mid-download", Client::Ask, TUNNELS)
            .with(Fault::Cut(3 * MIB + 7, Break::Reset), Broken(long())),
        row("killed before the answer", Client::Ask, after(0), answer(), TUNNELS)
            .with(Fault::Cut(0, Break::Fin), Broken(vec![])),
        row("killed before a page", Client::Page, App::Http, Whole(page(), End::Own), SPDY)
            .with(Fault::Cut(0, Break::Fin), Whole(page(), End::Own)),
        row("slow upgrades", Client::Ask, after(0), answer(), TUNNELS)
            .with(Fault::Delay(Duration::from_millis(700)), answer()),
        row("pod being deleted", Client::Ask, after(0), answer(), SPDY).with(Fault::NoPod, True(ANSWER.to_vec())),
        row("no right to port-forward", Client::Ask, after(0), answer(), SPDY)
            .with(Fault::Forbidden, True(ANSWER.to_vec())),
    ]
}

/// A row through one way; the error says what was not as it must be.
fn run(row: &Row, way: Way) -> Result<String, String> {
    let began = Instant::now();
    let ports = [("app", apps::start(row.app).port()), ("echo", apps::start(App::Echo).port())];
    let api = Api::with_ports(&ports);
    let old = matches!(row.fault, Fault::OldRuntime);
    api.faults().old_runtime(old);
    let running = Running::start(way, &api, &ports, "--pod-running-timeout 2s")?;
    let (app, echo) = (running.at["app"], running.at["echo"]);
    let mut kept = clients::connect(echo).map_err(|e| format!("no connection: {e}"))?;
    let mut said = Vec::new();
    let mut check = |what: &str, right: bool, seen: String| {
        said.push(if right { seen.clone() } else { format!("{what}: {seen}") });
        right
    };
    let mut right = check("the echo before", clients::echoes(&mut kept), "echo".to_owned());
    let refused = [Rung::Spdy, Rung::Tunnelled, Rung::Channel];
    match row.fault {
        Fault::None | Fault::OldRuntime => {}
        Fault::Cut(bytes, how) => api.faults().cut_after(bytes, how),
        Fault::Delay(by) => api.faults().delay(by),
        Fault::NoPod => refused.iter().for_each(|r| api.faults().refuse(*r, Some(Refusal::pod_not_found()))),
        Fault::Forbidden => refused.iter().for_each(|r| api.faults().refuse(*r, Some(Refusal::forbidden("create")))),
    }
    let (seen, held) = row.client.run(app);
    right &= check("first", row.first.is(&seen), seen.to_string());
    if matches!(row.fault, Fault::NoPod | Fault::Forbidden) {
        for rung in refused {
            let way_refuses = way == Way::Tunnelled && rung == Rung::Spdy;
            api.faults().refuse(rung, way_refuses.then(|| Refusal::no_such_rung(rung)));
        }
    }
    if held.is_some() {
        let others = std::thread::scope(|threads| {
            let other = || clients::connect(echo).is_ok_and(|mut other| clients::echoes(&mut other));
            let others = [(); 10].map(|()| threads.spawn(other));
            others.into_iter().filter_map(|other| other.join().ok()).filter(|echoed| *echoed).count()
        });
        right &= check("others", others == 10, format!("{others}/10"));
    } else {
        let (seen, _) = row.client.run(app);
        right &= check("second", row.second.is(&seen), seen.to_string());
        let other = clients::connect(echo).is_ok_and(|mut other| clients::echoes(&mut other));
        right &= check("another connection", other, format!("other {}", if other { "ok" } else { "dead" }));
    }
    right &= check("the echo kept open", clients::echoes(&mut kept), "kept".to_owned());
    right &= check("the way", way.is_all_of(api.counted()), String::new());
    let text = format!("{}({:.1?})", said.join("; "), began.elapsed());
    if right { Ok(text) } else { Err(text) }
}

#[test]
fn pathologies() {
    let rows = rows();
    // kubectl first: it waits longest, for what never comes.
    let ways = kubectl().map(|_| Way::Kubectl).into_iter().chain(ALL.iter().copied());
    let cells: Vec<(usize, Way)> = ways
        .flat_map(|way| (0..rows.len()).map(move |number| (number, way)))
        .filter(|(number, way)| *way == Way::Kubectl || rows[*number].ways.contains(way))
        .collect();
    let queue = Mutex::new(cells.into_iter());
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..6 {
            threads.spawn(|| {
                loop {
                    let Some((number, way)) = queue.lock().unwrap().next() else { return };
                    let result = run(&rows[number], way);
                    seen.lock().unwrap().push((number, way, result));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|(number, way, _)| (*number, *way));
    let mut wrong = Vec::new();
    for (number, way, result) in &seen {
        let (mark, text) = match result {
            Ok(text) => ("ok   ", text),
            Err(text) => ("WRONG", text),
        };
        let line = format!("{mark} {:32} {:9} {text}", rows[*number].name, format!("{way:?}"));
        eprintln!("{line}");
        if result.is_err() && *way != Way::Kubectl {
            wrong.push(line);
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
