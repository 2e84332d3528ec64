//! A browser's own compiler: it refuses divergent barriers and subgroup operations, which naga
//! accepts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prefgrad::Capability;
use serde_json::{Value, json};

use crate::inventory::{name, shaders};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// For a browser that never answers.
const PATIENCE: Duration = Duration::from_secs(300);

/// A child that ends with the test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn browser() -> Option<&'static str> {
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok();
    BROWSERS.into_iter().find(|name| runs(name))
}

fn open(browser: &str, profile: &std::path::Path, port: u16) -> Browser {
    let child = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--enable-unsafe-webgpu",
            "--use-webgpu-adapter=swiftshader",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://127.0.0.1:{port}/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the browser starts");
    Browser(child)
}

#[test]
fn a_browsers_compiler_accepts_every_variant() {
    let Some(browser) = browser() else {
        println!("skipped: none of {BROWSERS:?} is installed");
        return;
    };
    let texts: Vec<Value> = shaders()
        .iter()
        .map(|shader| {
            json!({
                "name": name(shader),
                "entry": shader.entry,
                "wgsl": shader.wgsl,
                "subgroups": shader.capability == Capability::Subgroups,
            })
        })
        .collect();
    let texts = Value::from(texts).to_string();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let profile = tempfile::tempdir().expect("a folder");
    let _browser = open(browser, profile.path(), port);
    let verdict = serve(&listener, &texts);
    if let Some(reason) = verdict["skipped"].as_str() {
        println!("skipped: {reason}");
        return;
    }
    let faults = verdict["faults"].as_array().expect("a list of faults");
    let faults: Vec<&str> = faults.iter().filter_map(Value::as_str).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(verdict["compiled"].as_u64() > Some(0), "{verdict}");
    println!("{browser}: {verdict}");
}

/// Serves the page and the texts until the page posts its verdict.
fn serve(listener: &TcpListener, texts: &str) -> Value {
    listener.set_nonblocking(true).expect("a listener");
    let started = Instant::now();
    loop {
        let Ok((stream, _)) = listener.accept() else {
            assert!(started.elapsed() < PATIENCE, "the browser never answered");
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        stream.set_nonblocking(false).expect("a connection");
        // A connection that the browser opens ahead of need sends nothing for a while.
        stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a connection");
        if let Some(verdict) = answer(stream, texts) {
            return verdict;
        }
    }
}

/// Answers one request; returns the body of the verdict.
fn answer(mut stream: TcpStream, texts: &str) -> Option<Value> {
    let mut reader = BufReader::new(stream.try_clone().expect("a connection"));
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((key, value)) = header.split_once(':')
            && key.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let (status, kind, content) = match path {
        "/" => ("200 OK", "text/html", include_str!("browser.html")),
        "/shaders" => ("200 OK", "application/json", texts),
        "/verdict" => ("200 OK", "text/plain", ""),
        _ => ("404 Not Found", "text/plain", ""),
    };
    let length = content.len();
    // A browser that hangs up asks again.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{content}"
    );
    (path == "/verdict").then(|| serde_json::from_slice(&body).expect("JSON"))
}
