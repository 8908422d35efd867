"""A function, its queue and its table, for the CDK: `cdk deploy --app "python stack.py"`.

Bundle the function's dependencies beside `app.py` first: `pip install -r requirements.txt -t .`
"""

from aws_cdk import App, Duration, RemovalPolicy, Stack
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_lambda_event_sources import SqsEventSource
from constructs import Construct

TIMEOUT = 30
"""Seconds."""


class Charges(Stack):
    """Charges each order of a queue once."""

    def __init__(self, scope: Construct, name: str) -> None:
        super().__init__(scope, name)
        records = dynamodb.Table(
            self,
            "Records",
            partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="expiration",
            # Without the records of finished work, messages that come again would be new ones.
            removal_policy=RemovalPolicy.RETAIN,
        )
        failed = sqs.Queue(self, "FailedOrders", retention_period=Duration.days(14))
        orders = sqs.Queue(
            self,
            "Orders",
            visibility_timeout=Duration.seconds(6 * TIMEOUT),
            dead_letter_queue=sqs.DeadLetterQueue(queue=failed, max_receive_count=5),
        )
        charge = lambda_.Function(
            self,
            "Charge",
            runtime=lambda_.Runtime.PYTHON_3_13,
            handler="app.handler",
            code=lambda_.Code.from_asset("."),
            timeout=Duration.seconds(TIMEOUT),
            memory_size=512,
            environment={"TABLE": records.table_name},
        )
        records.grant(
            charge,
            "dynamodb:PutItem",
            "dynamodb:UpdateItem",
            "dynamodb:DeleteItem",
            "dynamodb:GetItem",
        )
        charge.add_event_source(SqsEventSource(orders, batch_size=10, report_batch_item_failures=True))


app = App()
Charges(app, "Charges")
app.synth()
