"""conf/ecs/estat.yaml: deployed to moto, its numbers fit each other, its rights are what is used.

moto makes neither all types of resources nor all properties of those that it makes. What it
leaves out is looked at in the template as CloudFormation would resolve it, and where a service's
own interface can take it, it is handed to that.
"""

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from estat.config import loading
from estat.config.settings import Settings
from tests.conftest import need
from tests.support.cloudformation import ACCOUNT, REGION, Template
from tests.support.dlq_dir import dlq_files, dlq_paths
from tests.support.eventually import eventually
from tests.support.iam import enforced
from tests.support.page import blocks
from tests.support.s3 import Bucket, Moto, moto_server_path
from tests.support.server import ROOT, Server, free_port

TEMPLATE = ROOT / "conf" / "ecs" / "estat.yaml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()

#: What moto's CloudFormation does not make.
NOT_MADE = {
    "AWS::S3::BucketPolicy",
    "AWS::ApplicationAutoScaling::ScalableTarget",
    "AWS::ApplicationAutoScaling::ScalingPolicy",
    "AWS::CloudWatch::Alarm",
    "AWS::Logs::MetricFilter",
    "AWS::SNS::Subscription",
}


class Cloud:
    """A moto that stands for a whole account."""

    def __init__(self, moto: Moto, log: Path) -> None:
        self.moto = moto
        self.log = log
        ec2 = self.client("ec2")
        subnets = [found["SubnetId"] for found in ec2.describe_subnets()["Subnets"]]
        self.inputs = {
            "VpcId": ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
            "PublicSubnetA": subnets[0],
            "PublicSubnetB": subnets[1],
            "PrivateSubnetA": subnets[2],
            "PrivateSubnetB": subnets[3],
            "CertificateArn": self.client("acm").request_certificate(
                DomainName="events.example.com"
            )["CertificateArn"],
            "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/estat-ingest:1",
            "RepositoryArn": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/estat-ingest",
        }

    def client(self, service: str, **credentials: str) -> Any:
        given = credentials or {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(service, endpoint_url=self.moto.url, region_name=REGION, **given)


class Stack:
    """The template, deployed."""

    def __init__(self, cloud: Cloud, name: str, **parameters: str) -> None:
        self.cloud = cloud
        self.template = Template(TEMPLATE, cloud.inputs | parameters)
        formation = cloud.client("cloudformation")
        formation.create_stack(
            StackName=name,
            TemplateBody=self.template.text,
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value}
                for key, value in self.template.given.items()
            ],
        )
        (self.described,) = formation.describe_stacks(StackName=name)["Stacks"]
        self.made = {
            found["LogicalResourceId"]: found.get("PhysicalResourceId", "")
            for found in formation.describe_stack_resources(StackName=name)["StackResources"]
            if "LogicalResourceId" in found
        }
        self.resources = self.template.resources({k: v for k, v in self.made.items() if v})

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.made["Bucket"], self.cloud.client("s3"))

    @cached_property
    def container(self) -> dict[str, Any]:
        """The container as the task definition that was registered has it."""
        answer = self.cloud.client("ecs").describe_task_definition(
            taskDefinition=self.made["TaskDefinition"]
        )
        container: dict[str, Any] = answer["taskDefinition"]["containerDefinitions"][0]
        return container

    @property
    def environ(self) -> dict[str, str]:
        """The container's environment; moto keeps AWS::NoValue in lists, as None."""
        return {each["name"]: each["value"] for each in self.container["environment"] if each}

    @property
    def settings(self) -> Settings:
        secrets = {
            each["name"]: "a-secret-of-some-length" for each in self.container["secrets"] if each
        }
        return loading.load(self.environ | secrets, env_file="")

    def role_credentials(self) -> dict[str, str]:
        """Assume the task's role; moto can't read policies as its own CloudFormation keeps them."""
        iam = self.cloud.client("iam")
        for policy in self.resources["TaskRole"]["Policies"]:
            iam.put_role_policy(
                RoleName=self.made["TaskRole"],
                PolicyName=policy["PolicyName"],
                PolicyDocument=json.dumps(policy["PolicyDocument"]),
            )
        role = iam.get_role(RoleName=self.made["TaskRole"])["Role"]
        given = self.cloud.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="task")
        return {
            "AWS_ACCESS_KEY_ID": given["Credentials"]["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": given["Credentials"]["SecretAccessKey"],
            "AWS_SESSION_TOKEN": given["Credentials"]["SessionToken"],
        }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    need(moto_server_path(), "moto_server")
    directory = tmp_path_factory.mktemp("cloud")
    with Moto(directory) as moto:
        yield Cloud(moto, directory / "moto.log")


@pytest.fixture(scope="module")
def ephemeral(cloud: Cloud) -> Stack:
    return Stack(cloud, "ephemeral")


@pytest.fixture(scope="module")
def efs(cloud: Cloud) -> Stack:
    return Stack(cloud, "efs", Storage="efs")


@pytest.fixture(scope="module")
def full(cloud: Cloud) -> Stack:
    """Deploy it with a value for every parameter that may be empty."""
    groups = cloud.client("ec2").describe_security_groups()["SecurityGroups"]
    return Stack(
        cloud,
        "full",
        Storage="efs",
        FallbackBucket="other",
        FallbackAccount="999900001111",
        AccessLogsBucket="logs",
        DeletionProtection="true",
        BucketName="events-of-acme",
        KmsKeyArn=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0199",
        ExpireAfterDays="400",
        SettingsFileArn="arn:aws:s3:::acme-conf/estat/prod.env",
        AlarmEmail="ops@example.com",
        WriteKeysSecretArn=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:keys",
        IpHashKeySecretArn=f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/estat/ip-hash-key",
        MetricsSecurityGroup=groups[0]["GroupId"],
        TaskPolicyArn=f"arn:aws:iam::{ACCOUNT}:policy/tagging",
    )


@pytest.fixture(params=["ephemeral", "efs", "full"])
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.getfixturevalue(request.param)
    return found


def attributes(properties: dict[str, Any], name: str) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in properties[name]}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# --- what is made


def test_a_stack_is_made_of_all_that_its_conditions_ask_for_but_for_six_types(stack):
    assert stack.described["StackStatus"] == "CREATE_COMPLETE"
    wanted = {name for name in stack.resources if stack.template.type_of(name) not in NOT_MADE}
    assert set(stack.made) == wanted


def test_a_file_system_is_made_for_efs_only(ephemeral, efs):
    of_efs = set(efs.made) - set(ephemeral.made)
    assert of_efs == {
        "FileSystemSecurityGroup",
        "FromTasks",
        "FileSystem",
        "MountTargetA",
        "MountTargetB",
        "AccessPoint",
    }


# --- the balancer


def test_the_balancer_asks_for_ready_and_lets_a_target_drain(stack):
    balancing = stack.cloud.client("elbv2")
    (group,) = balancing.describe_target_groups(TargetGroupArns=[stack.made["TargetGroup"]])[
        "TargetGroups"
    ]
    assert (group["HealthCheckPath"], group["Matcher"]) == ("/ready", {"HttpCode": "200"})
    delay = attributes(stack.resources["TargetGroup"], "TargetGroupAttributes")
    assert int(delay["deregistration_delay.timeout_seconds"]) >= stack.settings.read_timeout


def test_only_what_clients_need_is_reachable_from_outside(ephemeral):
    balancing = ephemeral.cloud.client("elbv2")
    rules = balancing.describe_rules(ListenerArn=ephemeral.made["HttpsListener"])["Rules"]
    forwarded = {
        path
        for rule in rules
        if rule["Actions"][0]["Type"] == "forward"
        for condition in rule["Conditions"]
        for path in condition["PathPatternConfig"]["Values"]
    }
    assert forwarded == {"/collect", "/collect/*", "/collect.gif", "/estat.js"}
    (rest,) = (rule["Actions"][0] for rule in rules if rule["IsDefault"])
    assert (rest["Type"], rest["FixedResponseConfig"]["StatusCode"]) == ("fixed-response", "404")


# --- numbers that must fit each other


def test_the_environment_is_valid_settings_that_name_the_stacks_bucket(stack):
    settings = stack.settings
    assert settings.raw_bucket == stack.made["Bucket"]
    assert settings.http_addr.endswith(":8080")
    assert stack.container["portMappings"][0]["containerPort"] == 8080


def test_a_stop_ends_before_ecs_loses_patience(stack):
    patience = stack.container["stopTimeout"]
    assert patience <= 120
    assert stack.settings.shutdown_timeout + 10 <= patience


def test_the_balancer_sees_a_drain_before_it_ends(stack):
    group = stack.resources["TargetGroup"]
    seen = group["HealthCheckIntervalSeconds"] * group["UnhealthyThresholdCount"]
    assert stack.settings.drain_delay > seen


def test_a_worker_that_hangs_is_replaced_from_inside_before_the_balancer_gives_up(stack):
    group = stack.resources["TargetGroup"]
    check = stack.container["healthCheck"]
    gunicorns_timeout = 30
    assert (
        group["HealthCheckIntervalSeconds"] * group["UnhealthyThresholdCount"] > gunicorns_timeout
    )
    assert check["interval"] * (check["retries"] - 1) > gunicorns_timeout


def test_the_balancer_closes_idle_connections_before_the_server_does(stack):
    given = attributes(stack.resources["LoadBalancer"], "LoadBalancerAttributes")
    assert int(given["idle_timeout.timeout_seconds"]) < stack.settings.keepalive


def test_a_stop_has_the_time_for_every_attempt_of_an_upload(stack):
    settings = stack.settings
    third = (settings.shutdown_timeout - settings.drain_delay - 1) / 3
    assert third >= settings.s3_timeout * (1 + settings.s3_app_retries)


def test_the_dlqs_limit_fits_the_disk_beside_the_image(ephemeral):
    disk = int(ephemeral.resources["TaskDefinition"]["EphemeralStorage"]["SizeInGiB"])
    assert ephemeral.settings.dlq_max_size_bytes + 5 * 2**30 <= disk * 2**30


# --- storage


def test_on_ephemeral_storage_nothing_but_an_operator_takes_a_task_away(ephemeral):
    assert ephemeral.settings.durability == "journal"
    assert ephemeral.resources["TaskDefinition"]["Volumes"] == [{"Name": "state"}]
    assert ephemeral.resources["Service"]["AvailabilityZoneRebalancing"] == "DISABLED"
    tracking = ephemeral.resources["ScaleOnCpu"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["DisableScaleIn"] is True


def test_on_efs_the_servers_share_an_encrypted_volume_and_sync_before_they_answer(efs):
    assert efs.settings.durability == "fsync"
    (volume,) = efs.resources["TaskDefinition"]["Volumes"]
    mounted = volume["EFSVolumeConfiguration"]
    assert mounted["AuthorizationConfig"] == {"AccessPointId": "AccessPoint", "IAM": "ENABLED"}
    owner = efs.resources["AccessPoint"]["PosixUser"]
    assert efs.container["user"] == f"{owner['Uid']}:{owner['Gid']}"
    tracking = efs.resources["ScaleOnCpu"]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["DisableScaleIn"] is False


def test_a_durability_that_is_given_is_taken(cloud):
    given = Template(TEMPLATE, cloud.inputs | {"Storage": "efs", "Durability": "memory"})
    (container,) = given.resources({})["TaskDefinition"]["ContainerDefinitions"]
    environ = {each["Name"]: each["Value"] for each in container["Environment"]}
    assert environ["DURABILITY"] == "memory"


# --- the container


def test_the_container_runs_without_rights_and_writes_to_its_volume_alone(stack):
    container = stack.container
    assert container["linuxParameters"]["capabilities"]["drop"] == ["ALL"]
    (mount,) = container["mountPoints"]
    assert stack.settings.dlq_dir.startswith(mount["containerPath"] + "/")


def test_the_volume_and_the_user_are_those_of_the_image(ephemeral):
    """Fargate gives a volume the owner that the image's VOLUME has."""
    (mount,) = ephemeral.container["mountPoints"]
    assert f'VOLUME ["{mount["containerPath"]}"]' in DOCKERFILE
    assert f"--chown={ephemeral.container['user']} " in DOCKERFILE


def test_the_container_is_started_as_the_image_is(stack):
    entry_point = re.search(r"(?m)^ENTRYPOINT (\[.+\])$", DOCKERFILE)
    assert entry_point
    assert stack.container["entryPoint"] + stack.container["command"] == json.loads(entry_point[1])


def test_the_containers_health_check_is_that_of_the_image(ephemeral):
    """ECS does not look at the image's own."""
    command = re.search(r"(?ms)^HEALTHCHECK .*?CMD (\[.+?\])$", DOCKERFILE)
    assert command
    assert ephemeral.container["healthCheck"]["command"] == ["CMD", *json.loads(command[1])]


# --- the bucket


def test_the_bucket_and_the_file_system_outlive_the_stack(efs):
    declared = efs.template.document["Resources"]
    stays = {
        name
        for name, each in declared.items()
        if each.get("DeletionPolicy") == each.get("UpdateReplacePolicy") == "Retain"
    }
    assert stays == {"Bucket", "FileSystem"}


def test_nothing_expires_unless_that_is_asked_for_and_the_dlq_prefix_never(ephemeral, full):
    expiring = [
        {
            rule["Prefix"]
            for rule in stack.resources["Bucket"]["LifecycleConfiguration"]["Rules"]
            if "ExpirationInDays" in rule
        }
        for stack in (ephemeral, full)
    ]
    assert expiring == [set(), {"raw/", "raw_streams/", "raw_closed/"}]


# --- scaling and alarms


def test_the_services_themselves_take_the_scaling_the_alarms_and_the_filters(stack):
    """CloudFormation's names are those of the calls, so these check every property."""
    cloud, made = stack.cloud, stack.resources
    scaling, target = cloud.client("application-autoscaling"), made["ScalableTarget"]
    scaling.register_scalable_target(
        **target | {key: int(target[key]) for key in ("MinCapacity", "MaxCapacity")}
    )
    of_target = {
        key: target[key] for key in ("ServiceNamespace", "ScalableDimension", "ResourceId")
    }
    for name in ("ScaleOnCpu", "ScaleOnRefusals"):
        policy = {k: v for k, v in made[name].items() if k != "ScalingTargetId"}
        scaling.put_scaling_policy(**policy, **of_target)
    alarms = [n for n in made if stack.template.type_of(n) == "AWS::CloudWatch::Alarm"]
    for name in alarms:
        cloud.client("cloudwatch").put_metric_alarm(AlarmName=name, **made[name])
    for name in made:
        if stack.template.type_of(name) == "AWS::Logs::MetricFilter":
            (counted,) = made[name]["MetricTransformations"]
            cloud.client("logs").put_metric_filter(
                logGroupName=made[name]["LogGroupName"],
                filterName=name,
                filterPattern=made[name]["FilterPattern"],
                metricTransformations=[{k[0].lower() + k[1:]: v for k, v in counted.items()}],
            )
    assert len(scaling.describe_scaling_policies(ServiceNamespace="ecs")["ScalingPolicies"]) >= 2
    assert len(alarms) >= 10
    assert all(
        "Alarms" in action or ":sns:" in action
        for name in alarms
        for action in made[name]["AlarmActions"][:1]
    )


def test_refusals_add_tasks(ephemeral):
    assert "ScaleOnRefusals" in ephemeral.resources["RefusalsAlarm"]["AlarmActions"]
    steps = ephemeral.resources["ScaleOnRefusals"]["StepScalingPolicyConfiguration"]
    assert all(step["ScalingAdjustment"] > 0 for step in steps["StepAdjustments"])


def test_every_log_line_that_an_alarm_waits_for_is_one_that_the_server_writes(ephemeral):
    patterns = [
        made["FilterPattern"]
        for name, made in ephemeral.resources.items()
        if ephemeral.template.type_of(name) == "AWS::Logs::MetricFilter"
    ]
    named = set(re.findall(r'\$\.event = "(\w+)"', " ".join(patterns)))
    code = "".join(path.read_text() for path in (ROOT / "estat").rglob("*.py"))
    assert named
    assert {name for name in named if f'"{name}"' not in code} == set()


# --- the real server in the stack's environment


def server_in(stack: Stack, directory: Path, **others: str) -> Server:
    """Return the server with the container's environment, but for ports and directories."""
    local = {
        "HTTP_ADDR": f"127.0.0.1:{free_port()}",
        "METRICS_ADDR": f"127.0.0.1:{free_port()}",
        "DLQ_DIR": str(directory / "dlq"),
        "AWS_ENDPOINT_URL_S3": stack.cloud.moto.url,
    }
    server = Server(directory, stack.environ | local | others)
    server.port = int(local["HTTP_ADDR"].rpartition(":")[2])
    return server


@pytest.mark.parametrize("storage", ["ephemeral", "efs"])
def test_the_server_stores_an_event_with_the_environment_of_the_task_definition(
    storage, request, tmp_path
):
    stack = request.getfixturevalue(storage)
    with server_in(stack, tmp_path) as server:
        assert server.post('{"hello":"world"}').status == 202
        stored = eventually(stack.bucket.stored, 20, "the event is stored")
    assert [line["body"] for line in stored] == [{"hello": "world"}]


def used_rights(log: str, bucket: str) -> set[tuple[str, str]]:
    """Read from moto's log what was asked for and allowed, as rights and keys."""
    right = {
        "PUT": "s3:PutObject",
        "GET": "s3:GetObject",
        "HEAD": "s3:GetObject",
        "DELETE": "s3:DeleteObject",
    }
    plain = re.sub(r"\x1b\[\d+m", "", log)
    asked = re.findall(rf'"([A-Z]+) /{bucket}/(\S+) HTTP/1.1" (\d+)', plain)
    return {(right[method], key) for method, key, status in asked if status != "403"}


def granted_rights(stack: Stack) -> set[tuple[str, str]]:
    (policy,) = stack.resources["TaskRole"]["Policies"]
    return rights_of(policy["PolicyDocument"], stack.made["Bucket"])


def rights_of(policy: dict[str, Any], bucket: str) -> set[tuple[str, str]]:
    """Return the actions that a policy allows, each with the beginning of the keys."""
    prefix = f"arn:aws:s3:::{bucket}/"
    found = set()
    for statement in policy["Statement"]:
        actions, resources = (
            value if isinstance(value, list) else [value]
            for value in (statement["Action"], statement["Resource"])
        )
        found |= {
            (action, resource.removeprefix(prefix).removesuffix("*"))
            for action in actions
            for resource in resources
        }
    return found


def test_the_policy_that_the_page_shows_allows_all_that_the_tasks_role_may(ephemeral):
    shown = next(block for block in blocks("docs/bucket.md") if block.section == "Rights")
    allowed = rights_of(json.loads(shown.code), "my-bucket")
    assert [
        (action, key)
        for action, key in granted_rights(ephemeral)
        if not any(action == a and key.startswith(begin) for a, begin in allowed)
    ] == []


def test_the_tasks_role_may_do_what_the_server_does_and_nothing_else(cloud, tmp_path):
    """An outage, a replay, a batch stored in part, an unreadable file, a stop, `estat check`."""
    stack = Stack(cloud, "role")
    bucket = stack.bucket
    soon = {"DRAIN_DELAY": "0s", "SHUTDOWN_TIMEOUT": "20s", "FLUSH_INTERVAL": "100ms"}
    nowhere = f"http://127.0.0.1:{free_port()}"
    with server_in(stack, tmp_path, **soon, AWS_ENDPOINT_URL_S3=nowhere) as server:
        assert server.post('[{"n":1},{"n":2}]').json["accepted"] == 2
        assert server.stop() == 0
    # one batch and the stream's record wait; of the batch half was stored already
    (batch,) = (file for file in dlq_files(tmp_path / "dlq") if file.lines)
    key, first = batch.about["key"], batch.lines[0]
    half = {"events": "1", "first-id": first["id"], "last-id": first["id"]}
    cloud.client("s3").put_object(
        Bucket=bucket.name,
        Key=key,
        Metadata=half,
        Body=gzip.compress(json.dumps(first, separators=(",", ":")).encode() + b"\n"),
    )
    (damaged,) = (path for path in dlq_paths(tmp_path / "dlq") if path == batch.path)
    damaged.with_name(damaged.name.replace("_000001.", "_000009.")).write_bytes(b"no gzip")
    before = len(cloud.log.read_text())

    role = stack.role_credentials()
    with enforced(cloud.moto):
        with server_in(stack, tmp_path, **soon, **role) as server:
            eventually(server_settled(server), 30, "all is stored", last_words=server.log_text)
            assert server.post('{"n":3}').status == 202
            assert server.stop() == 0
            environ = server.environ
        refused = [line for line in server.logs() if "AccessDenied" in json.dumps(line)]
        checked = subprocess.run(
            [sys.executable, "-m", "estat", "check"],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        used = used_rights(cloud.log.read_text()[before:], bucket.name)
        forbidden = denied_to(cloud, role, bucket.name, key)

    assert forbidden == {"list", "delete an event", "write elsewhere"}
    assert refused == []
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert sorted(line["body"]["n"] for line in bucket.stored()) == [1, 2, 3]
    assert [
        (right, place)
        for right, place in granted_rights(stack)
        if not any(right == each and key.startswith(place) for each, key in used)
    ] == []


def test_the_tasks_role_gets_the_operators_own_policy_if_there_is_one(ephemeral, full):
    # in the template: moto's CloudFormation attaches none
    assert "ManagedPolicyArns" not in ephemeral.resources["TaskRole"]
    given = full.template.given["TaskPolicyArn"]
    assert full.resources["TaskRole"]["ManagedPolicyArns"] == [given]


def test_a_replay_goes_on_where_s3_answers_403_for_a_key_that_is_not_there(serve, s3, bucket):
    """So it does for a role that may not list; moto answers 404."""
    s3.fail("500", method="PUT", times=1)
    looked = s3.fail("403", method="HEAD")
    server = serve(via=s3, S3_APP_RETRIES="0")
    assert server.post('{"n":1}').status == 202
    eventually(bucket.stored, 30, "the batch is stored", last_words=server.log_text)
    assert looked.hits > 0
    assert [line["body"] for line in bucket.stored()] == [{"n": 1}]


def server_settled(server: Server) -> Any:
    """Return the condition that nothing waits on disk; /metrics has a port of its own."""
    return lambda: (
        not [path for path in server.dlq_dir.rglob("*") if path.suffix in (".gz", ".journal")]
    )


def denied_to(cloud: Cloud, role: dict[str, str], bucket: str, key: str) -> set[str]:
    """Return which of three requests the role is refused."""
    client = cloud.client("s3", **{name.lower(): value for name, value in role.items()})
    attempts = {
        "list": lambda: client.list_objects_v2(Bucket=bucket),
        "delete an event": lambda: client.delete_object(Bucket=bucket, Key=key),
        "write elsewhere": lambda: client.put_object(Bucket=bucket, Key="other/x", Body=b"x"),
    }
    denied = set()
    with closing(client):
        for name, attempt in attempts.items():
            try:
                attempt()
            except ClientError as exc:
                assert exc.response["Error"]["Code"] == "AccessDenied", exc
                denied.add(name)
    return denied
