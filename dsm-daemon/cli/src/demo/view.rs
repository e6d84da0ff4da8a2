//! What is seen of the demo: a few lines that change, or, where there is no terminal, lines that follow each other.

use super::News;
use crate::ls::{bytes, count};
use dsm_core::wire::control::SessionStatus;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};

/// On stderr: stdout is for the result.
pub(super) struct View {
    live: Option<Live>,
    /// Pixels of the image.
    pixels: u64,
    /// The last round that was shown.
    round: u64,
}

struct Live {
    all: MultiProgress,
    bar: ProgressBar,
    /// Two lines for each.
    hosts: Vec<[ProgressBar; 2]>,
}

fn line(text: &str) {
    // Who has closed stderr does not want to know.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl View {
    pub(super) fn new(processes: usize, hosts: usize, pixels: u64, daemon: &str) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        line(&format!("{processes} processes on {hosts} virtual hosts, daemon at {daemon}"));
        let live = (std::io::stderr().is_terminal() && !dumb).then(|| Live::new(hosts));
        Self { live, pixels, round: 0 }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.live {
            Some(live) => drop(live.all.println(text)),
            None => line(text),
        }
    }

    /// Something has been reached.
    pub(super) fn news(&mut self, news: News, statuses: &[SessionStatus]) {
        let text = match news {
            News::Doors => "stores: direct (handles), trapped (pointers)".into(),
            News::Latency => "ping-pong: how long a store takes to the other side".into(),
            News::Measured(direct, trapped) => {
                format!("store to visible: {:.1} us direct, {:.1} us trapped (median)", direct / 1e3, trapped / 1e3)
            }
            News::Round(round, of, done) => {
                let text = format!("{} pixels together, round {round} of {of}", count(self.pixels));
                if let Some(live) = &self.live {
                    live.bar.set_length(of * self.pixels);
                    live.bar.set_position((round - 1) * self.pixels + done);
                    live.bar.set_message(text);
                    return;
                }
                if std::mem::replace(&mut self.round, round) == round {
                    return;
                }
                text
            }
        };
        match &self.live {
            Some(live) => live.bar.set_message(text),
            None => {
                line(&text);
                if news == News::Latency {
                    statuses.iter().filter(|status| status.host != 0).for_each(|status| line(&describe(status)));
                }
            }
        }
    }

    /// Shows what the arbiters say.
    pub(super) fn show(&self, statuses: &[SessionStatus]) {
        let Some(live) = &self.live else { return };
        live.bar.tick();
        for ([above, below], status) in live.hosts.iter().zip(statuses) {
            above.set_message(if status.host == 0 { "starting".to_owned() } else { stores(status) });
            below.set_message(traffic(status));
        }
    }

    /// Leaves the last state on the screen.
    pub(super) fn finish(&self, statuses: &[SessionStatus]) {
        self.show(statuses);
        match &self.live {
            Some(live) => {
                live.bar.finish_and_clear();
                live.hosts.iter().flatten().for_each(ProgressBar::abandon);
            }
            None => statuses.iter().for_each(|status| line(&describe(status))),
        }
    }
}

impl Live {
    fn new(hosts: usize) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(12));
        let bar = all.add(ProgressBar::new(1).with_style(style("[{bar:24}] {wide_msg}")));
        let host = |template| all.add(ProgressBar::new(1).with_style(style(template)));
        let hosts = (0..hosts).map(|_| [host("  {wide_msg}"), host("          {wide_msg}")]).collect();
        Self { all, bar, hosts }
    }
}

fn describe(status: &SessionStatus) -> String {
    format!("{}; {}", stores(status), traffic(status))
}

fn stores(status: &SessionStatus) -> String {
    let SessionStatus { host, direct, trapped, bulk, applied, .. } = status;
    let [direct, trapped, bulk, applied] = [direct, trapped, bulk, applied].map(|number| count(*number));
    format!("host {host}: {direct} direct, {trapped} trapped, {bulk} bulk; {applied} applied")
}

fn traffic(status: &SessionStatus) -> String {
    let (frames, there, back) = (count(status.frames), bytes(status.bytes_in), bytes(status.bytes_out));
    format!("{frames} frames, {there} in, {back} out")
}
