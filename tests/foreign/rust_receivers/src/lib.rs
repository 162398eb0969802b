//! How a test and a receiver talk: one JSON object a line, orders in, answers and events out.

use std::io::{BufRead, Write};

use serde_json::{Value, json};

/// Write one line.
pub fn tell(line: Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// A member of an order, as text.
pub fn text(order: &Value, name: &str) -> String {
    order[name].as_str().unwrap_or_default().to_owned()
}

/// Carry out one order after the other until standard input ends; `do` names what to do.
pub fn obey(mut carry_out: impl FnMut(&str, &Value) -> Result<Value, String>) {
    for line in std::io::stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line.unwrap()).expect("an order is JSON");
        tell(match carry_out(&text(&order, "do"), &order) {
            Ok(answer) => json!({ "answer": answer }),
            Err(error) => json!({ "failed": error }),
        });
    }
}
