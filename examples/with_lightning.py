"""Branches with the Lightning Trainer: python examples/with_lightning.py"""

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data import load_data, normalize


class ShortcutTraining(lightning.LightningModule):
    def __init__(self, net, schedule):
        super().__init__()
        self.net, self.schedule = net, schedule

    def training_step(self, batch, index):
        x, y = batch
        sb.reset_states(self.net)  # does nothing for our own networks; SpikingJelly, snnTorch and sinabs need it
        progress = self.trainer.global_step / self.trainer.estimated_stepping_batches
        terms = sb.shortcut_loss(self.net(x), y, coefficient=self.schedule(progress))
        self.log_dict({"main": terms.main, "total": terms.total}, prog_bar=True)
        return terms.total

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


data = load_data("bundled")
images = normalize(data.train.images[:600], mean=data.mean, std=data.std)
loader = DataLoader(TensorDataset(images, data.train.labels[:600]), batch_size=50, shuffle=True)

torch.manual_seed(0)
net = sb.attach(sb.create_model("resnet20", num_classes=10, num_steps=2, in_channels=1), sample=images[:2])
module = ShortcutTraining(net, sb.schedules.Linear(start=0.25, end=0.0))
trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_model_summary=False)
trainer.fit(module, loader)
model = sb.strip(module.net)
