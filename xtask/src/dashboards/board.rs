//! A dashboard in Grafana's terms.

use serde_json::{Value, json};

use super::panel::{Panel, SOURCE};

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// Version of the dashboard's schema: what Grafana 10.4 writes; newer ones read it.
const SCHEMA: u32 = 39;

/// A dashboard.
pub(super) struct Board {
    /// Grafana's name for it, and the file's.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) variables: Vec<Variable>,
    pub(super) rows: Vec<(&'static str, Vec<Panel>)>,
}

/// Something to choose at the top, of the values that a label of a metric has.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) metric: &'static str,
    pub(super) label: &'static str,
    /// Several at a time, all of them at first.
    pub(super) several: bool,
}

impl Board {
    /// The dashboard as Grafana imports it.
    pub(super) fn json(&self) -> Value {
        let mut panels = Vec::new();
        let (mut y, mut height) = (0, 0);
        for (title, row) in &self.rows {
            y += height;
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }));
            let mut x = 0;
            (y, height) = (y + 1, 0);
            for panel in row {
                if x + panel.width > COLUMNS {
                    (x, y, height) = (0, y + height, 0);
                }
                let place = json!({"x": x, "y": y, "w": panel.width, "h": panel.height()});
                panels.push(panel.json(panels.len() + 1, &place));
                x += panel.width;
                height = height.max(panel.height());
            }
        }
        let source = json!({
            "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1,
            "hide": 0, "multi": false, "includeAll": false, "options": [], "regex": "", "skipUrlSync": false,
        });
        let variables: Vec<Value> = std::iter::once(source).chain(self.variables.iter().map(Variable::json)).collect();
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["guenon"],
            "schemaVersion": SCHEMA,
            "editable": true,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "links": [{
                "title": "Guenon", "type": "dashboards", "tags": ["guenon"], "asDropdown": true, "keepTime": true,
                "includeVars": false, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
            }],
            "templating": {"list": variables},
            "annotations": {"list": []},
            "panels": panels,
        })
    }
}

impl Variable {
    fn json(&self) -> Value {
        let query = format!("label_values({}, {})", self.metric, self.label);
        let mut json = json!({
            "name": self.name, "label": self.title, "type": "query", "datasource": SOURCE.json(), "definition": query,
            "query": {"query": query, "refId": format!("variable-{}", self.name)},
            "refresh": 2, "sort": 1, "hide": 0, "regex": "", "skipUrlSync": false, "options": [],
            "multi": self.several, "includeAll": self.several,
        });
        if self.several {
            json["allValue"] = ".*".into();
            json["current"] = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
        }
        json
    }
}
