//! The load's threads: each has its part of the connections and one epoll.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::tally::Tally;
use super::wire::{Progress, Request, Wire};
use super::{Job, Kind};
use crate::fast::BODY;
use crate::trial;

/// Connections that are being opened at the same time by one thread.
const OPENING: usize = 32;
/// With no event for so long, what is outstanding has failed.
const STALL: Duration = Duration::from_secs(15);
/// How long exchanges begun within the time may end after it.
const GRACE: Duration = Duration::from_secs(3);
/// What is read at once.
const PIECE: usize = 256 * 1024;
/// The timer's mark among the events; connections have their index.
const TIMER: u64 = u64::MAX;

/// Runs a job; `idle` is called once all connections of an idle one stand, and returns when they may go.
pub fn run(job: &Job, idle: impl Fn() + Sync) -> Result<Tally, String> {
    raise_files();
    let block = pattern()?;
    let barrier = Barrier::new(job.threads);
    let parts = thread::scope(|scope| {
        let work = |index: usize| {
            let share = job.connections / job.threads + usize::from(index < job.connections % job.threads);
            let (barrier, block, idle) = (&barrier, &block[..], &idle);
            move || Part::new(job, block, share)?.run(job, barrier, idle)
        };
        let threads: Vec<_> = (0..job.threads).map(|index| scope.spawn(work(index))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread panicked".into()))).collect::<Vec<_>>()
    });
    parts.into_iter().try_fold(Tally::default(), |sum, part: Result<Tally, String>| Ok(sum.join(part?)))
}

/// Thousands of connections need as many descriptors; what cannot be had shows when they are opened.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn pattern() -> Result<Vec<u8>, String> {
    let mut block = Vec::with_capacity(BODY as usize);
    trial::write_pattern(&mut block, BODY).map_err(|e| e.to_string())?;
    block.truncate(PIECE);
    Ok(block)
}

/// One thread's connections.
struct Part<'j> {
    events: OwnedFd,
    timer: OwnedFd,
    wires: Vec<Option<Wire>>,
    share: usize,
    tally: Tally,
    block: &'j [u8],
    piece: Vec<u8>,
    job: &'j Job,
}

impl<'j> Part<'j> {
    fn new(job: &'j Job, block: &'j [u8], share: usize) -> Result<Self, String> {
        let events = epoll::create(CreateFlags::CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|e| format!("timerfd: {e}"))?;
        epoll::add(&events, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)
            .map_err(|e| format!("epoll: {e}"))?;
        let (tally, piece) = (Tally::default(), vec![0; PIECE]);
        Ok(Self { events, timer, wires: Vec::new(), share, tally, block, piece, job })
    }

    fn run(mut self, job: &Job, barrier: &Barrier, idle: &(impl Fn() + Sync)) -> Result<Tally, String> {
        let small = Request::get(&job.path, job.address);
        if !matches!(job.kind, Kind::Connects { .. }) {
            let opened = self.open_all(&small);
            self.tally.held = self.wires.iter().flatten().count() as u64;
            let complete = job.kind == Kind::Idle || self.tally.held == self.share as u64;
            let failure = self.tally.failures.first().cloned().unwrap_or_default();
            // Every thread comes to the barrier, whatever happened, or the others would wait for ever.
            barrier.wait();
            opened?;
            if !complete {
                return Err(format!("{} of {} connections cannot be opened: {failure}", self.tally.failed, self.share));
            }
        } else {
            barrier.wait();
        }
        let start = Instant::now();
        match job.kind {
            Kind::Download { bytes } => {
                let path = format!("/bytes?n={bytes}");
                self.once(&Request::get(&path, job.address), start)?;
            }
            Kind::Upload { bytes } => {
                self.once(&Request::post("/sink", job.address, bytes), start)?;
                self.tally.bytes = bytes * self.tally.answers;
            }
            Kind::Requests { time } => self.again(&small, start, time)?,
            Kind::Connects { time, count } => {
                let threads = job.threads as u64;
                self.connects(&small, start, time, count.div_ceil(threads))?;
            }
            Kind::Paced { time, rate } => {
                let interval = Duration::from_secs(1) * u32::try_from(job.threads).unwrap_or(1) / rate;
                self.paced(&small, start, time, interval)?;
            }
            Kind::Idle => {
                self.tally.time = start.elapsed();
                if barrier.wait().is_leader() {
                    super::print(&self.tally);
                    idle();
                }
                barrier.wait();
                return Ok(self.tally);
            }
        }
        Ok(self.tally)
    }

    /// Opens every connection and has a small answer on each.
    fn open_all(&mut self, small: &Request) -> Result<(), String> {
        let (mut opened, mut busy) = (0, 0);
        loop {
            while busy < OPENING && opened < self.share {
                opened += 1;
                busy += usize::from(self.open(Instant::now()).is_some());
            }
            if busy == 0 {
                return Ok(());
            }
            self.pass(small, STALL, |part, _, outcome| {
                busy -= 1;
                if let Err(words) = outcome {
                    part.tally.fail(words);
                }
            })?;
        }
    }

    /// One exchange on each connection.
    fn once(&mut self, request: &Request, start: Instant) -> Result<(), String> {
        let mut busy = 0;
        for index in 0..self.wires.len() {
            busy += usize::from(self.begin(index, request, start));
        }
        while busy > 0 {
            self.pass(request, STALL, |part, _, outcome| {
                busy -= 1;
                match outcome {
                    Ok((took, body)) => {
                        part.tally.answer(took);
                        part.tally.bytes += body;
                    }
                    Err(words) => part.tally.fail(words),
                }
            })?;
        }
        self.tally.time = start.elapsed();
        Ok(())
    }

    /// The next exchange on each connection as soon as the former is done.
    fn again(&mut self, request: &Request, start: Instant, time: Duration) -> Result<(), String> {
        let end = start + time;
        let mut busy = 0;
        for index in 0..self.wires.len() {
            busy += usize::from(self.begin(index, request, Instant::now()));
        }
        while busy > 0 {
            self.pass(request, STALL, |part, index, outcome| {
                busy -= 1;
                let now = Instant::now();
                match outcome {
                    Ok((took, body)) if now <= end => {
                        part.tally.answer(took);
                        part.tally.bytes += body;
                    }
                    Ok(_) => {}
                    Err(words) => part.tally.fail(words),
                }
                if now < end {
                    busy += usize::from(part.begin(index, request, now));
                }
            })?;
        }
        self.tally.time = time;
        Ok(())
    }

    /// A new connection as soon as the former one has its answer. The client closes: where the server does, containerd
    /// holds its end back for a second on the way through a port-forward, and that would be measured.
    fn connects(&mut self, request: &Request, start: Instant, time: Duration, count: u64) -> Result<(), String> {
        let end = start + time;
        let (mut busy, mut begun) = (0, 0);
        loop {
            while busy < self.share && begun < count && Instant::now() < end {
                begun += 1;
                busy += usize::from(self.open(Instant::now()).is_some());
            }
            if busy == 0 {
                break;
            }
            self.pass(request, GRACE, |part, index, outcome| {
                busy -= 1;
                part.wires[index] = None;
                match outcome {
                    Ok((took, _)) if Instant::now() <= end => part.tally.answer(took),
                    Ok(_) => {}
                    Err(words) => part.tally.fail(words),
                }
            })?;
        }
        self.tally.time = time.min(start.elapsed());
        Ok(())
    }

    /// Requests at a fixed rate. One that finds no free connection waits, and its time has begun.
    fn paced(&mut self, request: &Request, start: Instant, time: Duration, interval: Duration) -> Result<(), String> {
        let count = (time.as_nanos() / interval.as_nanos().max(1)) as u32;
        let mut due = VecDeque::new();
        let mut free: Vec<usize> = (0..self.wires.len()).collect();
        let (mut begun, mut busy) = (0, 0);
        loop {
            let now = Instant::now();
            while begun < count && start + interval * begun <= now {
                due.push_back(start + interval * begun);
                begun += 1;
            }
            while let (Some(index), Some(began)) = (free.last().copied(), due.front().copied()) {
                due.pop_front();
                free.pop();
                if self.begin(index, request, began) {
                    busy += 1;
                }
            }
            if begun == count && busy == 0 {
                break;
            }
            if begun < count {
                self.wake_in((start + interval * begun).saturating_duration_since(now))?;
            }
            self.pass(request, STALL, |part, index, outcome| {
                busy -= 1;
                match outcome {
                    Ok((took, _)) => {
                        part.tally.answer(took);
                        free.push(index);
                    }
                    Err(words) => part.tally.fail(words),
                }
            })?;
        }
        // What found no connection any more was not answered either.
        for _ in due {
            self.tally.fail("no connection is left".into());
        }
        self.tally.time = start.elapsed();
        Ok(())
    }

    fn wake_in(&self, time: Duration) -> Result<(), String> {
        // Zero would switch it off.
        let time = time.max(Duration::from_nanos(1));
        let value = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop).map_err(|e| format!("timerfd: {e}"))
    }

    /// Opens a connection and begins an exchange on it; its place, or none when that failed.
    fn open(&mut self, began: Instant) -> Option<usize> {
        let opened = Wire::open(self.job.address).and_then(|mut wire| {
            wire.begin(began);
            let index = self.wires.iter().position(Option::is_none).unwrap_or(self.wires.len());
            // Connected to a machine beside us it may be ready by now; a refusal shows at the first byte.
            epoll::add(&self.events, &wire, EventData::new_u64(index as u64), wire.wanted)
                .map_err(|e| format!("epoll: {e}"))?;
            Ok((index, wire))
        });
        match opened {
            Ok((index, wire)) => {
                match self.wires.get_mut(index) {
                    Some(place) => *place = Some(wire),
                    None => self.wires.push(Some(wire)),
                }
                Some(index)
            }
            Err(words) => {
                self.tally.fail(words);
                None
            }
        }
    }

    /// Begins an exchange; false when the connection is gone or breaks at once.
    fn begin(&mut self, index: usize, request: &Request, began: Instant) -> bool {
        let Some(wire) = self.wires.get_mut(index).and_then(Option::as_mut) else {
            self.tally.fail("the connection ended between two requests".into());
            return false;
        };
        wire.begin(began);
        match self.advance(index, request) {
            // An answer cannot be there before it is waited for.
            Ok(_) => true,
            Err(words) => {
                self.tally.fail(words);
                self.wires[index] = None;
                false
            }
        }
    }

    /// One look at the events, at most `limit` long; `done` is told of each exchange that ended.
    fn pass(
        &mut self,
        request: &Request,
        limit: Duration,
        mut done: impl FnMut(&mut Self, usize, Result<(Duration, u64), String>),
    ) -> Result<(), String> {
        let mut ready = Vec::with_capacity(256);
        let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut ready), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("epoll: {e}")),
        }
        if ready.is_empty() {
            for index in 0..self.wires.len() {
                if self.wires[index].take_if(|wire| wire.busy).is_some() {
                    done(self, index, Err(format!("nothing for {} s", limit.as_secs())));
                }
            }
        }
        for event in &ready {
            let mark = event.data.u64();
            if mark == TIMER {
                continue;
            }
            let index = mark as usize;
            match self.wires.get(index).and_then(Option::as_ref) {
                Some(wire) if wire.busy => {}
                // A connection nobody uses spoke or ended: its next exchange, if there is one, will tell.
                Some(_) => {
                    self.quiet(index);
                    continue;
                }
                None => continue,
            }
            match self.advance(index, request) {
                Ok(None) => {}
                Ok(Some(answer)) => done(self, index, Ok(answer)),
                Err(words) => {
                    self.wires[index] = None;
                    done(self, index, Err(words));
                }
            }
        }
        Ok(())
    }

    /// Waits for nothing on a connection without exchange, so that its end does not wake us for ever.
    fn quiet(&mut self, index: usize) {
        if let Some(wire) = self.wires[index].take() {
            let _ = epoll::delete(&self.events, &wire);
        }
    }

    /// Carries one exchange on; the answer's time and bytes once it is there.
    fn advance(&mut self, index: usize, request: &Request) -> Result<Option<(Duration, u64)>, String> {
        let Some(wire) = self.wires[index].as_mut() else { return Ok(None) };
        match wire.advance(request, self.block, &mut self.piece)? {
            Progress::Answered { body } => Ok(Some((wire.began.elapsed(), body))),
            Progress::Wait(wanted) => {
                if wire.wanted != wanted {
                    wire.wanted = wanted;
                    epoll::modify(&self.events, &*wire, EventData::new_u64(index as u64), wanted)
                        .map_err(|e| format!("epoll: {e}"))?;
                }
                Ok(None)
            }
        }
    }
}
