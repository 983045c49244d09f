//! The page for browsers: one document, nothing loaded from elsewhere, light and dark.

use std::fmt::Write;

use super::{Description, Interface, Visit, entrance, published};

/// Rows and ports that are drawn; the table below the drawing has all of them.
const MAX_ROWS: usize = 16;
const MAX_PORTS: usize = 6;

/// The grid of the drawing, in its own units. A detail's character is a little over 7 wide, so that 50 of them, an IPv6
/// gateway with its label, fit a network's box, and 46, an IPv6 address with its prefix, an interface's.
const VISITOR: Span = Span { from: 2, to: 214 };
const HOST: Span = Span { from: 280, to: 710 };
const NETWORK: Span = Span { from: 300, to: 690 };
const CONTAINER: Span = Span { from: 816, to: 1216 };
const INTERFACE: Span = Span { from: 836, to: 1196 };
const WIDTH: i32 = 1218;
const LINE: i32 = 19;
const TOP: i32 = 14;
const HEADING: i32 = 54;
const GAP: i32 = 22;

/// Left and right of a column.
#[derive(Clone, Copy)]
struct Span {
    from: i32,
    to: i32,
}

impl Span {
    fn width(self) -> i32 {
        self.to - self.from
    }

    /// How many characters of a detail fit.
    fn characters(self) -> usize {
        usize::try_from((self.width() - 24) * 10 / 73).unwrap_or(0)
    }
}

/// A box with a title and lines below.
struct Card {
    class: &'static str,
    title: String,
    lines: Vec<String>,
}

impl Card {
    fn height(&self) -> i32 {
        46 + LINE * count(&self.lines)
    }

    fn draw(&self, out: &mut String, span: Span, top: i32, height: i32) {
        rectangle(out, self.class, span, top, height);
        let x = span.from + 12;
        let content = 18 + LINE * count(&self.lines);
        let y = top + (height - content) / 2 + 16;
        label(out, "title", x, y, &self.title, span.characters() - 4);
        for (line, row) in self.lines.iter().zip(1..) {
            label(out, "detail", x, y + 3 + LINE * row, line, span.characters());
        }
    }
}

fn count<T>(items: &[T]) -> i32 {
    i32::try_from(items.len()).unwrap_or(i32::MAX / 1000)
}

/// The whole document.
pub(super) fn page(description: &Description, visit: &Visit) -> String {
    let name = escape(&description.name);
    let svg = drawing(description, visit);
    let table = table(description);
    let hostname = escape(&description.hostname);
    let visitor = visit.address;
    let marked = entrance(description, visit).map_or("", |_| "; the marked line is the way you took");
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<main>\n<h1>{name}</h1>\n<p>Hostname <code>{hostname}</code>. You came from <code>{visitor}</code>{marked}.</p>\n<figure>\n{svg}</figure>\n{table}\
         <footer>Served by <b>rnet</b> from inside the container. Also as <a href=\"/text\">text</a> and \
         <a href=\"/json\">JSON</a>.</footer>\n</main>\n</body>\n</html>\n"
    )
}

const STYLE: &str = "\
:root{--page:#f6f7f9;--ink:#1c2330;--soft:#5b6577;--line:#b4bdcb;--card:#fff;--host:#eef1f6;--way:#0b62d6;--tint:#e6f0ff}\
@media(prefers-color-scheme:dark){:root{--page:#12161d;--ink:#e8ecf3;--soft:#9aa5b8;--line:#465064;--card:#1d232e;\
--host:#171c25;--way:#6aa9ff;--tint:#1a2b47}}\
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:1260px;margin:0 auto;padding:28px 20px}\
h1{margin:0;font-size:28px;line-height:1.2;overflow-wrap:anywhere}p{margin:6px 0 18px;color:var(--soft)}\
code,svg .detail{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}\
code{font-size:.9em;color:var(--ink);overflow-wrap:anywhere}\
figure{margin:0 0 24px;overflow-x:auto}svg{display:block;width:100%;min-width:860px;height:auto}\
svg .frame{fill:var(--host);stroke:var(--line)}svg .card{fill:var(--card);stroke:var(--line)}\
svg .on{fill:var(--tint);stroke:var(--way);stroke-width:1.5}\
svg text{fill:var(--ink)}svg .heading{font-size:17px;font-weight:600}svg .title{font-size:15px;font-weight:600}\
svg .detail{font-size:12px}svg .note{font-size:12px;fill:var(--soft)}\
svg .wire{fill:none;stroke:var(--line);stroke-width:2}svg .way{fill:none;stroke:var(--way);stroke-width:2.5}\
svg .tip{fill:var(--way)}\
.tables{overflow-x:auto}table{border-collapse:collapse;font-size:14px;width:100%}\
th,td{text-align:left;vertical-align:top;padding:7px 16px 7px 0;border-top:1px solid var(--line)}\
th{color:var(--soft);font-weight:500}td code{display:block;white-space:nowrap}\
footer{margin-top:26px;color:var(--soft);font-size:14px}a{color:var(--way)}";

/// The picture: visitor, host with ports and networks, container with interfaces.
fn drawing(description: &Description, visit: &Visit) -> String {
    let rows = rows(description, visit);
    let ports = ports(description, visit);
    let first = TOP + HEADING + ports.as_ref().map_or(0, |card| card.height() + 40);
    let bottom = rows.iter().fold(first, |y, row| y + row.height() + GAP)
        + if hidden(description) > 0 { 22 } else { 0 };
    let height = (bottom + 6).max(TOP + 200);

    let mut out = String::new();
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"From the visitor through the host to the \
         container\">\n<defs><marker id=\"tip\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"9\" \
         markerHeight=\"9\" markerUnits=\"userSpaceOnUse\" orient=\"auto\">\
         <path class=\"tip\" d=\"M0 0 10 5 0 10z\"/></marker></defs>"
    );
    frame(&mut out, HOST, "host", height - TOP - 4);
    frame(&mut out, CONTAINER, &format!("container {}", description.name), height - TOP - 4);
    let way_top = first_stop(&mut out, ports.as_ref());
    let way = entrance(description, visit).is_some();
    draw_visitor(
        &mut out,
        visit,
        Target { y: way_top.unwrap_or(first + center(&rows)), marked: way || way_top.is_some() },
    );
    if let (Some(_), true) = (way_top, way) {
        let x = (NETWORK.from + NETWORK.to) / 2;
        path(&mut out, "way", &format!("M{x} {} V{}", first - 40, first - 2), true);
    }
    draw_rows(&mut out, &rows, first);
    if hidden(description) > 0 {
        let text = format!("and {} more, listed below", hidden(description));
        label(&mut out, "note", INTERFACE.from, bottom - 14, &text, 60);
    }
    out.push_str("</svg>\n");
    out
}

fn center(rows: &[Row]) -> i32 {
    rows.first().map_or(40, |row| row.height() / 2)
}

fn hidden(description: &Description) -> usize {
    description.interfaces.len().saturating_sub(MAX_ROWS)
}

/// A network, an interface, and the wire between them.
struct Row {
    network: Card,
    interface: Card,
    wire: &'static str,
    marked: bool,
}

impl Row {
    fn height(&self) -> i32 {
        self.network.height().max(self.interface.height())
    }
}

/// The interface that the visitor came in by first, so that the way is a line without a detour.
fn rows(description: &Description, visit: &Visit) -> Vec<Row> {
    let way = entrance(description, visit);
    let marked =
        way.and_then(|index| description.interfaces.get(index)).map(|interface| row(interface, true));
    let others = description.interfaces.iter().enumerate().filter(|(index, _)| Some(*index) != way);
    marked.into_iter().chain(others.map(|(_, interface)| row(interface, false))).take(MAX_ROWS).collect()
}

fn row(interface: &Interface, marked: bool) -> Row {
    let class = if marked { "card on" } else { "card" };
    let network_line = interface.bridge.as_ref().map(|_| format!("network {}", interface.network));
    let mut lines: Vec<String> = network_line.into_iter().chain(interface.subnets.iter().cloned()).collect();
    lines.extend(interface.gateways.iter().map(|gateway| format!("gateway {gateway}")));
    let title = match &interface.bridge {
        Some(bridge) => format!("bridge {bridge}"),
        None => format!("network {}", interface.network),
    };
    let mac = interface.mac.iter().map(|mac| format!("MAC {mac}"));
    let addresses = interface.addresses.iter().cloned().chain(mac).collect();
    Row {
        network: Card { class, title, lines },
        interface: Card { class, title: interface.name.clone(), lines: addresses },
        wire: if interface.bridge.is_some() { "veth pair" } else { "" },
        marked,
    }
}

fn draw_rows(out: &mut String, rows: &[Row], first: i32) {
    if rows.is_empty() {
        label(out, "note", INTERFACE.from, first + 20, "connected to no network", 50);
    }
    let mut top = first;
    for row in rows {
        let height = row.height();
        let middle = top + height / 2;
        row.network.draw(out, NETWORK, top, height);
        row.interface.draw(out, INTERFACE, top, height);
        let (class, end) = if row.marked { ("way", INTERFACE.from - 2) } else { ("wire", INTERFACE.from) };
        path(out, class, &format!("M{} {middle} H{end}", NETWORK.to), row.marked);
        let x = (HOST.to + CONTAINER.from) / 2;
        let _ = writeln!(
            out,
            "<text class=\"note\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            middle - 9,
            row.wire
        );
        top += height + GAP;
    }
}

/// The published ports as one card: the one that the visitor used first.
fn ports(description: &Description, visit: &Visit) -> Option<Card> {
    let used = published(description, visit);
    let others = description.ports.iter().enumerate().filter(|(index, _)| Some(*index) != used);
    let ordered =
        used.and_then(|index| description.ports.get(index)).into_iter().chain(others.map(|(_, port)| port));
    let mut lines: Vec<String> = ordered.take(MAX_PORTS).map(|port| port.replace("->", "→")).collect();
    if description.ports.len() > MAX_PORTS {
        lines.push(format!("and {} more, listed below", description.ports.len() - MAX_PORTS));
    }
    let title = if description.ports.len() == 1 { "published port" } else { "published ports" };
    let class = if used.is_some() { "card on" } else { "card" };
    (!lines.is_empty()).then(|| Card { class, title: title.to_owned(), lines })
}

/// Draws the ports and says at which height the way enters them, if it does.
fn first_stop(out: &mut String, ports: Option<&Card>) -> Option<i32> {
    let card = ports?;
    let top = TOP + HEADING;
    card.draw(out, NETWORK, top, card.height());
    (card.class == "card on").then_some(top + card.height() / 2)
}

/// Where the visitor's line ends.
struct Target {
    y: i32,
    marked: bool,
}

fn draw_visitor(out: &mut String, visit: &Visit, target: Target) {
    let mut lines = wrap(&visit.address.to_string(), VISITOR.characters());
    if !visit.asked.is_empty() {
        lines.push("asking for".to_owned());
        lines.extend(wrap(&visit.asked, VISITOR.characters()));
    }
    let card = Card { class: "card on", title: "you".to_owned(), lines };
    let top = (target.y - card.height() / 2).max(TOP);
    let middle = top + card.height() / 2;
    card.draw(out, VISITOR, top, card.height());
    if target.marked {
        let x = (VISITOR.to + HOST.from) / 2;
        let end = NETWORK.from - 2;
        path(out, "way", &format!("M{} {middle} H{x} V{} H{end}", VISITOR.to, target.y), true);
    }
}

/// Pieces of at most `width` characters, cut after a colon or dot where there is one.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in text.split_inclusive([':', '.']) {
        for character in piece.chars().take(4 * width) {
            push(&mut lines, character, width, piece);
        }
    }
    lines.truncate(4);
    lines
}

fn push(lines: &mut Vec<String>, character: char, width: usize, piece: &str) {
    let Some(line) = lines.last_mut() else { return };
    let starts_piece = piece.starts_with(character) && !line.is_empty();
    let length = line.chars().count();
    let piece_fits = length + piece.chars().count() <= width || piece.chars().count() > width;
    if length >= width || (starts_piece && !piece_fits && line.ends_with([':', '.'])) {
        lines.push(character.to_string());
    } else {
        line.push(character);
    }
}

fn frame(out: &mut String, span: Span, heading: &str, height: i32) {
    rectangle(out, "frame", span, TOP, height);
    label(out, "heading", span.from + 20, TOP + 34, heading, 36);
}

fn rectangle(out: &mut String, class: &str, span: Span, top: i32, height: i32) {
    let (x, width) = (span.from, span.width());
    let _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" rx=\"9\"/>"
    );
}

/// A line of text that cannot leave its box; cut, it still has the whole as its tooltip.
fn label(out: &mut String, class: &str, x: i32, y: i32, text: &str, width: usize) {
    let short = squeeze(text, width);
    let whole = if short == text { String::new() } else { format!("<title>{}</title>", escape(text)) };
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{whole}{}</text>", escape(&short));
}

/// Cut in the middle: names differ at their ends as often as at their beginnings, and ports only there.
fn squeeze(text: &str, width: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= width {
        return text.to_owned();
    }
    let head = width / 2;
    let tail = characters.len() - (width - head).saturating_sub(1);
    characters[..head].iter().chain(&['…']).chain(&characters[tail..]).collect()
}

fn path(out: &mut String, class: &str, way: &str, tip: bool) {
    let tip = if tip { " marker-end=\"url(#tip)\"" } else { "" };
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{way}\"{tip}/>");
}

/// Everything in full, for reading and copying.
fn table(description: &Description) -> String {
    let mut out = String::from("<div class=\"tables\"><table>\n");
    out.push_str("<tr><th>interface</th><th>address</th><th>MAC</th><th>network</th><th>subnet</th><th>gateway</th></tr>\n");
    for interface in &description.interfaces {
        let bridge = interface.bridge.iter().map(|bridge| format!("bridge {bridge}"));
        let network: Vec<String> = std::iter::once(interface.network.clone()).chain(bridge).collect();
        let mac: Vec<String> = interface.mac.iter().cloned().collect();
        let name = std::slice::from_ref(&interface.name);
        let cells = [name, &interface.addresses, &mac, &network, &interface.subnets, &interface.gateways];
        let cells: String = cells.into_iter().map(cell).collect();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    if !description.ports.is_empty() {
        let ports = cell(&description.ports).replacen("<td", "<td colspan=\"5\"", 1);
        let _ = writeln!(out, "<tr><th>published</th>{ports}</tr>");
    }
    out.push_str("</table></div>\n");
    out
}

fn cell(lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("<code>{}</code>", escape(line))).collect();
    format!("<td>{lines}</td>")
}

/// Text as it may stand in a document, between tags and in quotes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{visit, web},
        *,
    };

    #[test]
    fn the_page_shows_the_whole_way() {
        let html = page(&web(), &visit());
        for part in
            ["192.0.2.7", "8080 → 80/tcp", "bridge rnet0", "gateway 172.17.0.1", "eth0", "172.17.0.2/16"]
        {
            assert!(html.contains(part), "{part} is not on the page");
        }
        assert!(!html.contains("http://") && !html.contains("https://"));
    }

    #[test]
    fn nothing_from_outside_is_markup() {
        let bad = "<script>\"'&".to_owned();
        let mut hostile = web();
        hostile.name.clone_from(&bad);
        hostile.hostname.clone_from(&bad);
        hostile.ports = vec![bad.clone()];
        hostile.interfaces[0].bridge = Some(bad.clone());
        hostile.interfaces[0].addresses.push(bad.clone());
        let html = page(&hostile, &Visit { asked: bad, ..visit() });
        assert!(!html.contains("<script") && !html.contains("\"'&"));
    }

    #[test]
    fn a_container_without_a_network_has_a_page() {
        let html = page(&Description { name: "a".to_owned(), ..Description::default() }, &visit());
        assert!(html.contains("connected to no network"));
    }

    #[test]
    fn long_addresses_are_cut_between_groups() {
        let lines = wrap("2001:db8:1234:5678:9abc:def0:1234:5678", 25);
        assert_eq!(lines, ["2001:db8:1234:5678:9abc:", "def0:1234:5678"]);
        assert_eq!(wrap("x", 25), ["x"]);
        assert!(wrap(&"y".repeat(1000), 25).iter().all(|line| line.chars().count() <= 25));
    }
}
