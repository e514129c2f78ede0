//! Sensors in the languages that the shipped packs have none in, from `attune-sensor-agent` to a completed execution.

use crate::sensor_packs::Zoo;
use crate::support::{Installation, processes_of};

/// Emits one event and stays.
const RUBY: &str = r#"
require "json"
require "net/http"
rule = JSON.parse(ENV.fetch("ATTUNE_SENSOR_TRIGGERS")).first
body = { trigger_ref: "zoo.ruby", payload: { by: "ruby" }, trigger_instance_id: "rule_#{rule["id"]}" }
headers = { "Authorization" => "Bearer #{ENV.fetch("ATTUNE_API_TOKEN")}", "Content-Type" => "application/json" }
response = Net::HTTP.post(URI(ENV.fetch("ATTUNE_API_URL") + "/api/v1/events"), JSON.generate(body), headers)
abort response.body unless response.is_a?(Net::HTTPSuccess)
sleep
"#;

const SHELL: &str = r#"
id=$(printf %s "$ATTUNE_SENSOR_TRIGGERS" | sed 's/.*"id":\([0-9]*\).*/\1/')
curl -fsS "$ATTUNE_API_URL/api/v1/events" -H "Authorization: Bearer $ATTUNE_API_TOKEN" -H 'Content-Type: application/json' \
    -d '{"trigger_ref": "zoo.shell", "payload": {"by": "shell"}, "trigger_instance_id": "rule_'"$id"'"}' || exit 1
exec sleep 100000
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_ruby_and_shell_sensors_end_in_completed_executions() {
    let installation = Installation::bare().await;
    let zoo = Zoo::new(&installation);
    let sensors = [("ruby", RUBY), ("shell", SHELL)];
    for (language, script) in sensors {
        zoo.sensor(language, language, script);
    }
    zoo.load();
    let hub = installation.start("hub", &["hub"]);
    let worker = installation.start("worker", &["worker", "--name", "worker-1"]);
    let host = installation.host("one", |command| {
        command.env("ATTUNE_SENSOR_RUNTIMES", "shell,ruby");
    });
    for (language, _) in sensors {
        let completed = format!(
            "SELECT count(*) FROM execution JOIN enforcement ON enforcement.id = execution.enforcement
             JOIN event ON event.id = enforcement.event
             WHERE execution.status = 'completed' AND event.trigger_ref = 'zoo.{language}'
               AND event.payload = '{{\"by\": \"{language}\"}}'"
        );
        installation.wait_for(language, &completed, |count| count == 1).await;
        let running = format!(
            "SELECT count(*) FROM sensor_process WHERE sensor_ref = 'zoo.{language}' AND status = 'running'
             AND pid IS NOT NULL AND consecutive_failures = 0"
        );
        installation.wait_for(language, &running, |count| count == 1).await;
    }
    host.stop();
    let stopped = "SELECT count(*) FROM sensor_process WHERE status = 'stopped' AND pid IS NULL";
    assert_eq!(installation.database.number(stopped).await, 2);
    worker.stop();
    hub.stop();
    assert_eq!(processes_of(&installation), Vec::<u32>::new());
}
