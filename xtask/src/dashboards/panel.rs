//! A panel in Grafana's terms.

use serde_json::{Value, json};

use crate::links;

/// The data source that every query asks: what the variable `datasource` names.
pub(super) const SOURCE: Source = Source;

pub(super) struct Source;

impl Source {
    pub(super) fn json(&self) -> Value {
        json!({"type": "prometheus", "uid": "${datasource}"})
    }
}

/// What a panel looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One number, red when it is not 0 (or, without that, always plain).
    Number { fault: bool },
    /// Lines over time.
    Lines,
    /// Areas that add up.
    Stack,
    /// Rows of labels and a number.
    Table,
}

/// A panel.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    kind: Kind,
    title: &'static str,
    description: String,
    unit: &'static str,
    queries: Vec<(String, &'static str)>,
    /// Of 24 columns.
    pub(super) width: u32,
    /// The label that holds a drop reason, each of which then leads to its cure.
    reasons: bool,
    /// Shown in place of nothing.
    nothing: Option<&'static str>,
}

fn panel(kind: Kind, title: &'static str, unit: &'static str, description: &str) -> Panel {
    let width = match kind {
        Kind::Number { .. } => 3,
        Kind::Lines | Kind::Stack | Kind::Table => 12,
    };
    let description = description.to_owned();
    Panel { kind, title, description, unit, queries: Vec::new(), width, reasons: false, nothing: None }
}

/// A number that says how much.
pub(super) fn number(title: &'static str, unit: &'static str, description: &str) -> Panel {
    panel(Kind::Number { fault: false }, title, unit, description)
}

/// A number that should be 0.
pub(super) fn fault(title: &'static str, description: &str) -> Panel {
    panel(Kind::Number { fault: true }, title, "short", description)
}

/// Lines over time.
pub(super) fn lines(title: &'static str, unit: &'static str, description: &str) -> Panel {
    panel(Kind::Lines, title, unit, description)
}

/// Areas that add up, over time.
pub(super) fn stack(title: &'static str, unit: &'static str, description: &str) -> Panel {
    panel(Kind::Stack, title, unit, description)
}

/// Rows of labels with a number each.
pub(super) fn table(title: &'static str, unit: &'static str, description: &str) -> Panel {
    panel(Kind::Table, title, unit, description)
}

impl Panel {
    /// Adds a query in PromQL, and what its series are called (`{{label}}` stands for a label's value).
    pub(super) fn query(mut self, query: &str, called: &'static str) -> Self {
        self.queries.push((query.to_owned(), called));
        self
    }

    pub(super) fn width(mut self, width: u32) -> Self {
        self.width = width;
        self
    }

    /// Its series have a label `reason` that holds a drop reason.
    pub(super) fn of_reasons(mut self) -> Self {
        self.reasons = true;
        self
    }

    pub(super) fn or(mut self, nothing: &'static str) -> Self {
        self.nothing = Some(nothing);
        self
    }

    pub(super) fn height(&self) -> u32 {
        match self.kind {
            Kind::Number { .. } => 4,
            Kind::Lines | Kind::Stack | Kind::Table => 9,
        }
    }

    pub(super) fn json(&self, id: usize, place: &Value) -> Value {
        let targets: Vec<Value> =
            self.queries.iter().zip('A'..).map(|(query, name)| self.target(query, name)).collect();
        let mut defaults = json!({"unit": self.unit, "mappings": [], "custom": {}});
        if let Some(nothing) = self.nothing {
            defaults["noValue"] = nothing.into();
        }
        if self.reasons {
            let label = if self.kind == Kind::Table { "${__data.fields.reason}" } else { "${__field.labels.reason}" };
            let url = links::docs("drop-reasons.md", label);
            defaults["links"] =
                json!([{"title": format!("Cause and cure of {label}"), "url": url, "targetBlank": true}]);
        }
        let (kind, options, transformations) = self.look(&mut defaults);
        json!({
            "id": id, "type": kind, "title": self.title, "description": self.description, "datasource": SOURCE.json(),
            "gridPos": place, "targets": targets, "options": options, "transformations": transformations,
            "fieldConfig": {"defaults": defaults, "overrides": []}, "transparent": false,
        })
    }

    fn target(&self, (query, called): &(String, &str), name: char) -> Value {
        let now = matches!(self.kind, Kind::Table | Kind::Number { .. });
        json!({
            "refId": name.to_string(), "datasource": SOURCE.json(), "expr": query, "legendFormat": called,
            "instant": now, "range": !now, "format": if self.kind == Kind::Table { "table" } else { "time_series" },
            "editorMode": "code",
        })
    }

    /// Grafana's type of panel, its options, and what is done to the data before.
    fn look(&self, defaults: &mut Value) -> (&'static str, Value, Value) {
        match self.kind {
            Kind::Number { fault } => {
                let mut steps = vec![json!({"color": if fault { "green" } else { "text" }, "value": null})];
                if fault {
                    steps.push(json!({"color": "red", "value": 1}));
                }
                defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
                defaults["color"] = json!({"mode": "thresholds"});
                let options = json!({
                    "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false}, "orientation": "auto",
                    "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "textMode": "auto",
                    "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard",
                });
                ("stat", options, json!([]))
            }
            Kind::Lines | Kind::Stack => {
                let stacked = self.kind == Kind::Stack;
                defaults["color"] = json!({"mode": "palette-classic"});
                defaults["min"] = json!(0);
                defaults["custom"] = json!({
                    "drawStyle": "line", "lineWidth": 1, "fillOpacity": if stacked { 30 } else { 0 },
                    "showPoints": "never", "stacking": {"mode": if stacked { "normal" } else { "none" }, "group": "A"},
                });
                let options = json!({
                    "legend": {"displayMode": "table", "placement": "right", "showLegend": true, "calcs": ["lastNotNull", "max"]},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                });
                ("timeseries", options, json!([]))
            }
            Kind::Table => {
                defaults["color"] = json!({"mode": "thresholds"});
                let options = json!({
                    "showHeader": true, "cellHeight": "sm", "sortBy": [{"displayName": "Value", "desc": true}],
                });
                let hidden = json!({"Time": true, "__name__": true, "job": true});
                let organize = json!({"id": "organize", "options": {"excludeByName": hidden}});
                ("table", options, json!([organize]))
            }
        }
    }
}
